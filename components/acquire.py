"""Component of the step `acquire`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import component


@component
def acquire(
    config: str,
    catalog: Input[Dataset],
    embeddings: Input[Dataset],
    triage: Input[Artifact],
    output: Output[Dataset],
    labels: Input[Dataset] = None,
    run_folder: str = "",
    code: str = "",
) -> None:
    """Queue the images whose labels are worth their price.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`.
        output: The queue.
        labels: Labels bought since.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import AcquireConfig
    from scanloop.steps.acquire import acquire as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "queue", code)
    step(
        AcquireConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        embeddings=Path(embeddings.path),
        triage=Path(triage.path),
        labels=Path(labels.path) if labels else None,
        output=Path(output.path),
    )
