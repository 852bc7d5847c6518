"""Component of the step `embed`."""

from kfp.dsl import Dataset, Input, Model, Output

from components.base import component


@component
def embed(
    config: str,
    catalog: Input[Dataset],
    encoder: Input[Model],
    output: Output[Dataset],
    parts: list[int] = [],  # noqa: B006, RUF100  KFP takes the default from here
    run_folder: str = "",
    code: str = "",
) -> None:
    """Collect the vectors that the parts made, and make those that are missing: a float16 vector a slice.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        output: The embeddings.
        parts: Slices that each part embedded: the parts come first.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import EmbedConfig
    from scanloop.steps.embed import embed as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "embeddings", code)
    step(
        EmbedConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        encoder=Path(encoder.path),
        output=Path(output.path),
    )
