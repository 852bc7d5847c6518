"""Component of the step `oracle`."""

from kfp.dsl import Dataset, Input, Output

from components.base import component


@component
def oracle(
    config: str,
    catalog: Input[Dataset],
    queue: Input[Dataset],
    output: Output[Dataset],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Answer a queue from hidden labels, in the clinicians' place.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        queue: Artifact of `acquire`.
        output: The labels.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import OracleConfig
    from scanloop.steps.oracle import oracle as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "labels", code)
    step(
        OracleConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        queue=Path(queue.path),
        output=Path(output.path),
    )
