"""Component of the parts of the step `embed`."""

from kfp.dsl import Dataset, Input, Model

from components.base import component


@component
def embed_part(
    config: str,
    part: str,
    catalog: Input[Dataset],
    encoder: Input[Model],
    run_folder: str = "",
    code: str = "",
) -> int:
    """Turn the slices of a range of shards into vectors, in the store that all parts and `embed` share.

    Args:
        config: Section `embed` of the run's configuration, as JSON.
        part: "K/N", the K-th of N ranges; "1/1" leaves everything to `embed`.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        run_folder: Folder of a local run, which holds the store unless the configuration names one.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import EmbedConfig
    from scanloop.steps.embed_part import embed_part as work
    from scanloop.steps.placement import placed

    placed("", run_folder, "", code)
    return work(
        EmbedConfig.model_validate_json(config),
        part,
        catalog=Path(catalog.path),
        encoder=Path(encoder.path),
        run_folder=run_folder,
    )
