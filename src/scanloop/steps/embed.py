"""Embed: one float16 vector a slice, one file a shard; a shard that was embedded before is not embedded again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import step
from scanloop.config import EmbedConfig
from scanloop.embedding.cache import read_vectors, vectors_path, write_vectors
from scanloop.embedding.encoders import read_encoder
from scanloop.embedding.engine import Engine
from scanloop.errors import ArtifactError
from scanloop.provenance import code_digest, digest, packages
from scanloop.types import Image

CACHE = ".embeddings"
"""Folder beside the artifact that keeps vectors by content, over runs and over changes of the archive."""


@dataclass(frozen=True)
class EmbedSummary:
    """How many slices have a vector, of which dimension, under which encoder's digest."""

    slices: int
    dimension: int
    encoder_digest: str


@step("embeddings")
def embed(config: EmbedConfig, *, catalog: Path, encoder: Path, output: Path) -> EmbedSummary:
    """Embeddings of every slice of a catalog, committed shard by shard.

    Vectors are named by the digests of their encoder and shard. Those that the same encoder, batch size, precision,
    code and packages left in the cache beside `output` are taken from there, so a killed run continues at its next
    shard and a grown archive pays for its new shards only. In int8 that holds as long as the growth leaves the sample
    for calibration as it was; every change of it embeds everything anew, so that all vectors are of one scale.

    Args:
        config: Batch size and precision.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        output: Directory for the embeddings.

    Raises:
        ArtifactError: The encoder was prepared for slices of another size than the catalog's.
    """
    net, preprocess = read_encoder(encoder)
    encoder_digest = read_json(encoder / "encoder.json")["digest"]
    manifest, archive = read_table(catalog, "manifest"), read_json(catalog / "catalog.json")
    _require_one_size(archive["short_side_px"], preprocess.archive_px)
    sample = _sample(manifest, config)
    shards, maker_digest = archive["shards"], _maker_digest(encoder_digest, config, sample)
    engine = Engine(net, preprocess, config.batch_size, config.precision, _images(catalog, sample))
    cache = output.parent / CACHE
    files, index = {}, []
    with tqdm(total=len(manifest), desc="embed", unit="slice", mininterval=2) as bar:
        for shard, rows in manifest.groupby("shard", sort=True):
            cached = vectors_path(cache, maker_digest, shards[shard])
            vectors = read_vectors(cached)
            if vectors is None or len(vectors) != len(rows):
                ((_, _, images),) = iterate_shards(catalog, rows)
                vectors = engine(images)
                write_vectors(cached, vectors)
            path = vectors_path(output, encoder_digest, shards[shard])
            write_vectors(path, vectors)
            files[str(shard)] = str(path.relative_to(output))
            index.append(pd.DataFrame({"slice_id": rows["slice_id"], "shard": shard, "row": range(len(rows))}))
            bar.update(len(rows))
    write_table(output, "index.parquet", pd.concat(index, ignore_index=True))
    facts = {"encoder_digest": encoder_digest, "dimension": net.dimension, "dtype": "float16", "files": files}
    write_json(output / "embeddings.json", facts)
    return EmbedSummary(len(manifest), net.dimension, encoder_digest)


def _require_one_size(catalog_px: int, encoder_px: int) -> None:
    """Return if an image that is served will be shrunk as the catalog's slices were."""
    if catalog_px != encoder_px:
        raise ArtifactError(
            f"the catalog's slices were shrunk to {catalog_px} px, the encoder was prepared for {encoder_px}; run "
            f"pretrain on this catalog, or set ingest.short_side_px to {encoder_px}"
        )


def _sample(manifest: pd.DataFrame, config: EmbedConfig) -> pd.DataFrame:
    """Rows of the slices that int8 is calibrated with, none in other precisions.

    Those of the least digests are drawn, so that most stay the same when the archive grows.
    """
    if config.precision != "int8":
        return manifest[:0]
    draws = [hashlib.sha256(f"{config.seed}:{slice_id}".encode()).hexdigest() for slice_id in manifest["slice_id"]]
    return manifest.iloc[np.argsort(np.array(draws, dtype=str), kind="stable")[: config.calibration_slices]]


def _images(catalog: Path, rows: pd.DataFrame) -> list[Image]:
    return [image for _, _, images in iterate_shards(catalog, rows) for image in images]


def _maker_digest(encoder_digest: str, config: EmbedConfig, sample: pd.DataFrame) -> str:
    """Digest of all that decides the vectors of a given shard, to the bit."""
    calibrated_with = sample["slice_id"].tolist()
    how = [config.batch_size, config.precision, calibrated_with]
    return digest([encoder_digest, *how, code_digest(__name__), packages()])
