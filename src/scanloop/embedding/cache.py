"""Vectors by maker and shard, so that nothing is embedded twice: one float16 file a shard, found by content."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save

from scanloop.artifacts import read_json, read_table, write_bytes
from scanloop.errors import ArtifactError
from scanloop.types import Half, Labels


@dataclass(frozen=True)
class Embeddings:
    """Vectors of slices.

    Attributes:
        slice_ids: (n,) strings.
        vectors: float16 (n, dimension), in the order of the ids.
        first: Leading columns that are the first of two encoders'; None where there is one.
    """

    slice_ids: list[str]
    vectors: Half
    first: int | None = None

    def of(self, slice_ids: list[str]) -> Half:
        """Vectors of these slices, (len(slice_ids), dimension), in their order.

        Raises:
            ArtifactError: A slice has no vector.
        """
        return self.vectors[_rows_of(self.slice_ids, slice_ids)]


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


@dataclass(frozen=True)
class StoredVectors:
    """Vectors of asked slices on disk, read a shard at a time, each time that they are iterated over.

    Attributes:
        parts: By shard: its file, the rows wanted of it, and their places among the slices asked for.
        dimension: Numbers a vector.
        first: How many of them are the first of two encoders'; None where there is one.
    """

    parts: list[tuple[Path, Labels, Labels]]
    dimension: int
    first: int | None

    def __iter__(self) -> Iterator[tuple[Labels, Half]]:
        """Places (n_shard,) and vectors float16 (n_shard, dimension), shard by shard."""
        for path, rows, places in self.parts:
            vectors = read_vectors(path)
            if vectors is None:
                raise ArtifactError(f"{path} is missing or broken; run embed again")
            yield places, vectors[rows]


def stored_vectors(directory: Path, slice_ids: list[str] | None = None) -> StoredVectors:
    """Vectors of an embeddings artifact, none of which is read yet.

    Args:
        directory: Artifact of `embed`.
        slice_ids: Slices asked for; None asks for all, in the order of the artifact's index.

    Raises:
        ArtifactError: A slice has no vector.
    """
    index, facts = read_table(directory, "index.parquet"), read_json(directory / "embeddings.json")
    found = np.arange(len(index)) if slice_ids is None else _rows_of(index["slice_id"], slice_ids)
    shards, row = pd.factorize(index["shard"].to_numpy()[found]), index["row"].to_numpy()[found]
    order = np.argsort(shards[0], kind="stable")
    cuts = np.flatnonzero(np.diff(shards[0][order])) + 1
    parts = [
        (directory / facts["files"][shards[1][shards[0][places[0]]]], row[places], places)
        for places in np.split(order, cuts)
        if len(places)
    ]
    return StoredVectors(parts, facts["dimension"], facts.get("first_dimension"))  # older versions knew one encoder


def read_embeddings(directory: Path) -> Embeddings:
    """All vectors of an embeddings artifact, in the manifest's order."""
    index, stored = read_table(directory, "index.parquet"), stored_vectors(directory)
    vectors = np.empty((len(index), stored.dimension), dtype=np.float16)
    for places, part in stored:
        vectors[places] = part
    return Embeddings(index["slice_id"].tolist(), vectors, stored.first)


def _rows_of(slice_ids: Iterable[str], asked: list[str]) -> Labels:
    """Row of each slice asked for."""
    rows = pd.Index(slice_ids).get_indexer(pd.Index(asked))
    if len(rows) and rows.min() < 0:
        raise ArtifactError(f"slice {asked[int(rows.argmin())]} has no embedding; run embed again")
    return rows.astype(np.int64)
