"""Component of the step `retrain`."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.base import component


@component
def retrain(
    config: str,
    catalog: Input[Dataset],
    encoder: Input[Model],
    embeddings: Input[Dataset],
    triage: Input[Artifact],
    labels: Input[Dataset],
    output: Output[Model],
    pseudo_labels: Input[Dataset] = None,
    name: str = "bundle",
    run_folder: str = "",
    code: str = "",
) -> None:
    """Train and calibrate the classifier, with promoted pseudo-labels where they are given.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`.
        labels: Labels bought since.
        output: The bundle.
        pseudo_labels: Artifact of `pseudo_label`.
        name: Name of the artifact in the run's folder: "bundle" or "baseline".
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import RetrainConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.retrain import retrain as step

    output.path = placed(output.path, run_folder, name, code)
    step(
        RetrainConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        encoder=Path(encoder.path),
        embeddings=Path(embeddings.path),
        triage=Path(triage.path),
        labels=Path(labels.path),
        pseudo_labels=Path(pseudo_labels.path) if pseudo_labels else None,
        output=Path(output.path),
    )
