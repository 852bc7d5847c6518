"""Component of the step `triage`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import component


@component
def triage(
    config: str,
    catalog: Input[Dataset],
    embeddings: Input[Dataset],
    output: Output[Artifact],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Project and cluster the embeddings, and compare the clusters with the labels at hand.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        output: The triage.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import TriageConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.triage import triage as step

    output.path = placed(output.path, run_folder, "triage", code)
    step(
        TriageConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        embeddings=Path(embeddings.path),
        output=Path(output.path),
    )
