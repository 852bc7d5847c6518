"""Component of the step `validate`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.base import component


@component
def validate(
    config: str,
    catalog: Input[Dataset],
    output: Output[Artifact],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Check a catalog against its expectations; a violated one stops the pipeline.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        output: The validation.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import ValidateConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.validate import validate as step

    output.path = placed(output.path, run_folder, "validation", code)
    step(ValidateConfig.model_validate_json(config), catalog=Path(catalog.path), output=Path(output.path))
