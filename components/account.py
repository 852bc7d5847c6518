"""Component of the step `account`."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.base import component


@component
def account(
    config: str,
    catalog: Input[Dataset],
    output: Output[Artifact],
    validation: Input[Artifact] = None,
    encoder: Input[Model] = None,
    embeddings: Input[Dataset] = None,
    triage: Input[Artifact] = None,
    queue: Input[Dataset] = None,
    labels: Input[Dataset] = None,
    pseudo_labels: Input[Dataset] = None,
    baseline: Input[Model] = None,
    bundle: Input[Model] = None,
    evaluation: Input[Artifact] = None,
    promotion: Input[Artifact] = None,
    drift: Input[Artifact] = None,
    publication: Input[Artifact] = None,
    imported: list[str] = [],  # noqa: B006  a port's default; nothing changes it
    run_folder: str = "",
    code: str = "",
) -> None:
    """Add up what the run spent: node seconds by the price table, and labels.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        output: The account.
        validation: Artifact of `validate`.
        encoder: Artifact of `pretrain`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`.
        queue: Artifact of `acquire`.
        labels: Labels bought since.
        pseudo_labels: Artifact of `pseudo_label`.
        baseline: Artifact of `retrain`, on labels alone.
        bundle: Artifact of `retrain`, with pseudo-labels.
        evaluation: Artifact of `evaluate`.
        promotion: Artifact of `promote`.
        drift: Artifact of `detect_drift`.
        publication: Artifact of `publish`.
        imported: Names of the artifacts above that an earlier run made and was charged for.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import AccountConfig
    from scanloop.steps.account import account as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "account", code)
    step(
        AccountConfig.model_validate_json(config).model_copy(update={"imported": tuple(imported)}),
        catalog=Path(catalog.path),
        **{
            name: Path(artifact.path)
            for name, artifact in {
                "validation": validation,
                "encoder": encoder,
                "embeddings": embeddings,
                "triage": triage,
                "queue": queue,
                "labels": labels,
                "pseudo_labels": pseudo_labels,
                "baseline": baseline,
                "bundle": bundle,
                "evaluation": evaluation,
                "promotion": promotion,
                "drift": drift,
                "publication": publication,
            }.items()
            if artifact
        },
        output=Path(output.path),
    )
