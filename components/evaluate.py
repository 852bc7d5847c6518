"""Component of the step `evaluate`."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.base import component


@component
def evaluate(
    config: str,
    catalog: Input[Dataset],
    labels: Input[Dataset],
    pseudo_labels: Input[Dataset],
    bundle: Input[Model],
    baseline: Input[Model],
    output: Output[Artifact],
    embeddings: Input[Dataset] = None,
    triage: Input[Artifact] = None,
    run_folder: str = "",
    code: str = "",
) -> None:
    """Measure both arms on the hold-out with intervals and from other sides, and predict every image.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        labels: Labels bought since.
        pseudo_labels: Artifact of `pseudo_label`.
        bundle: Artifact of `retrain`, with pseudo-labels.
        baseline: Artifact of `retrain`, on labels alone.
        output: The evaluation.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import EvaluateConfig
    from scanloop.steps.evaluate import evaluate as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "evaluation", code)
    step(
        EvaluateConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        labels=Path(labels.path),
        pseudo_labels=Path(pseudo_labels.path),
        bundle=Path(bundle.path),
        baseline=Path(baseline.path),
        embeddings=Path(embeddings.path) if embeddings else None,
        triage=Path(triage.path) if triage else None,
        output=Path(output.path),
    )
