"""Component of the step `pretrain`."""

from kfp.dsl import Dataset, Input, Model, Output

from components.base import component


@component
def pretrain(
    config: str,
    catalog: Input[Dataset],
    output: Output[Model],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Train an encoder on the unlabelled slices, or take it from given weights.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        output: The encoder.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import PretrainConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.pretrain import pretrain as step

    output.path = placed(output.path, run_folder, "encoder", code)
    step(PretrainConfig.model_validate_json(config), catalog=Path(catalog.path), output=Path(output.path))
