"""Embed: one float16 vector a slice, one file a shard; a shard that was embedded before is not embedded again."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from scanloop.artifacts import TableWriter, count_rows, write_bytes, write_json
from scanloop.build import scratch, step
from scanloop.config import EmbedConfig
from scanloop.embedding.cache import vectors_path
from scanloop.embedding.ranges import Maker, shards_of
from scanloop.errors import ArtifactError
from scanloop.steps.embed_part import seconds_folder, store_of

LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class EmbedSummary:
    """How many slices have a vector, of which dimension, under which encoder's digest, in which precision."""

    slices: int
    dimension: int
    encoder_digest: str
    precision: str


@step("embeddings")
def embed(config: EmbedConfig, *, catalog: Path, encoder: Path, output: Path) -> EmbedSummary:
    """Embeddings of every slice of a catalog, committed shard by shard.

    Vectors are named by the digests of their encoder and shard. Those that the same encoder, batch size, precision,
    code and packages left in the store, by `embed_part` or by an earlier run, are taken from there; what is missing is
    made here. So a killed run continues at its next shard, and a grown archive pays for its new shards only. In int8
    that holds as long as the growth leaves the sample for calibration as it was; every change of it embeds everything
    anew, so that all vectors are of one scale.

    Another precision than float32 is first compared with it on slices of this archive; `embeddings.json` tells how
    faithful it is.

    Args:
        config: Batch size, precision and where vectors are kept.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        output: Directory for the embeddings.

    Raises:
        ArtifactError: The encoder was prepared for slices of another size than the catalog's.
        ConfigError: The precision is not faithful enough.
    """
    store = store_of(config, output.parent)
    maker = Maker(config, catalog, encoder, store)
    slices = count_rows(catalog, "manifest")
    with tqdm(total=slices, desc="embed", unit="slice", mininterval=2) as bar:
        maker.fill(shards_of(catalog), bar.update)
    files = {}
    with TableWriter(output, "index.parquet") as index:
        for shard in shards_of(catalog):
            path = vectors_path(output, maker.encoder_digest, shard.digest)
            _copy(maker.path(shard), path)
            files[shard.name] = str(path.relative_to(output))
            index.append(
                pd.DataFrame(
                    {"slice_id": shard.slice_ids, "shard": shard.name, "row": range(len(shard.slice_ids))},
                )
            )
    precision = next(reversed(maker.fidelity), config.precision)
    facts = {
        "encoder_digest": maker.encoder_digest, "dimension": maker.dimension,
        "first_dimension": maker.first_dimension, "dtype": "float16", "files": files, "precision": precision,
        "fidelity": maker.fidelity,
    }  # fmt: skip
    write_json(output / "embeddings.json", facts)
    _tidy(store)
    _charge_parts(seconds_folder(store, config, maker.encoder_digest), scratch(output))
    return EmbedSummary(slices, maker.dimension, maker.encoder_digest, precision)


def _copy(stored: Path, path: Path) -> None:
    try:
        write_bytes(path, stored.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{stored} has gone while it was collected; run embed again") from error


def _tidy(store: Path) -> None:
    """Remove what killed tasks left half written; a file of the last hour may still be under way."""
    for leftover in store.rglob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()


def _charge_parts(worked: Path, own: Path) -> None:
    """Count the seconds of the tasks that filled the store as seconds of this artifact, once."""
    for beat in sorted(worked.glob("*.seconds")):
        write_bytes(own / beat.name, beat.read_bytes())
        beat.unlink()
