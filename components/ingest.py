"""Component of the step `ingest`."""

from kfp.dsl import Dataset, Output

from components.base import component


@component
def ingest(
    config: str,
    output: Output[Dataset],
    source_version: str = "",
    run_folder: str = "",
    code: str = "",
) -> None:
    """Read an archive into a catalog: slices, groups, splits, shards and a quarantine.

    Args:
        config: Section of the run's configuration, as JSON.
        output: The catalog.
        source_version: Version of the archive; part of KFP's cache key, so that a grown archive is read again.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import IngestConfig
    from scanloop.steps.ingest import ingest as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "catalog", code)
    step(IngestConfig.model_validate_json(config), output=Path(output.path))
