"""Vectors by maker and shard, so that nothing is embedded twice: one float16 file a shard, found by content."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save

from scanloop.artifacts import read_json, read_table, write_bytes
from scanloop.errors import ArtifactError
from scanloop.types import Half


@dataclass(frozen=True)
class Embeddings:
    """Vectors of slices.

    Attributes:
        slice_ids: (n,) strings.
        vectors: float16 (n, dimension), in the order of the ids.
    """

    slice_ids: list[str]
    vectors: Half

    def of(self, slice_ids: list[str]) -> Half:
        """Vectors of these slices, (len(slice_ids), dimension), in their order.

        Raises:
            ArtifactError: A slice has no vector.
        """
        rows = pd.Index(self.slice_ids).get_indexer(pd.Index(slice_ids))
        if len(rows) and rows.min() < 0:
            raise ArtifactError(f"slice {slice_ids[int(rows.argmin())]} has no embedding; run embed again")
        return self.vectors[rows]


def vectors_path(directory: Path, maker_digest: str, shard_digest: str) -> Path:
    """File of one shard's vectors, named by digests of what made them and of what they were made from."""
    return directory / maker_digest[:16] / f"{shard_digest[:16]}.safetensors"


def write_vectors(path: Path, vectors: Half) -> None:
    """Write one shard's vectors, whole or not at all."""
    write_bytes(path, save({"embeddings": np.ascontiguousarray(vectors)}))


def read_vectors(path: Path) -> Half | None:
    """Vectors float16 (n, dimension) of one shard; None where the file is missing or broken."""
    try:
        vectors: Half = load_file(path)["embeddings"]
    except Exception:  # a torn or foreign file is one to be made again, whatever is wrong with it
        return None
    return vectors


def read_embeddings(directory: Path) -> Embeddings:
    """All vectors of an embeddings artifact, in the manifest's order."""
    index = read_table(directory, "index.parquet")
    facts = read_json(directory / "embeddings.json")
    parts = {shard: read_vectors(directory / name) for shard, name in facts["files"].items()}
    if missing := [shard for shard, part in parts.items() if part is None]:
        raise ArtifactError(f"{directory}: the vectors of {missing[0]} are missing; run embed again")
    vectors = np.concatenate([part for part in parts.values() if part is not None])
    return Embeddings(index["slice_id"].tolist(), vectors)
