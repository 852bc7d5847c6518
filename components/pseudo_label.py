"""Component of the step `pseudo_label`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import component


@component
def pseudo_label(
    config: str,
    catalog: Input[Dataset],
    embeddings: Input[Dataset],
    triage: Input[Artifact],
    labels: Input[Dataset],
    output: Output[Dataset],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Propose pseudo-labels for the pool, and promote them where the hold-out gate lets them through.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`.
        labels: Labels bought since.
        output: The pseudo labels.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import PseudoLabelConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.pseudo_label import pseudo_label as step

    output.path = placed(output.path, run_folder, "pseudo_labels", code)
    step(
        PseudoLabelConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        embeddings=Path(embeddings.path),
        triage=Path(triage.path),
        labels=Path(labels.path),
        output=Path(output.path),
    )
