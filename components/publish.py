"""Component of the step `publish`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import component


@component
def publish(
    config: str,
    catalog: Input[Dataset],
    queue: Input[Dataset],
    output: Output[Artifact],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Publish a queue in the label store, where clinicians read it.

    Args:
        config: Section `label` of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        queue: Artifact of `acquire`.
        output: What was published.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import LabelConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.publish import publish as step

    output.path = placed(output.path, run_folder, "publication", code)
    step(
        LabelConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        queue=Path(queue.path),
        output=Path(output.path),
    )
