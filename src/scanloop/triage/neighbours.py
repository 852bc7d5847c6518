"""The search index: which slices look most like a given one, among millions, in milliseconds and in little memory."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from scanloop.artifacts import read_json, write_bytes, write_json
from scanloop.errors import ArtifactError
from scanloop.provenance import digest
from scanloop.triage.near import unit
from scanloop.types import Half, Labels, Single

FACTS, FOLDER = "neighbours.json", "neighbours"

PART_SLICES = 262_144
"""Slices a file of the index: what building it and searching it hold in memory at once, whatever the archive."""

TRAINED_ON = 65_536
"""Vectors drawn by seed that the lists of an approximate index are trained on, at most."""

MOST_LISTS, PROBES = 1024, 32
"""Lists of an approximate index, at most, and how many of them a search looks into."""

RECALL_QUERIES, RECALL_AT = 256, 10
"""Slices that recall is measured with, and the neighbours of each that count."""

Parts = Iterable[tuple[Labels, Half]]
"""Places (n,) and vectors (n, d), shard by shard; may be gone through more than once."""


@dataclass(frozen=True)
class Index:
    """A search index on disk, none of which is read yet.

    Attributes:
        directory: The artifact.
        facts: What `neighbours.json` says.
    """

    directory: Path
    facts: dict[str, Any]

    def search(self, queries: Half | Single, count: int) -> tuple[Labels, Single]:
        """Most similar slices of each query: places (n, count), and cosines float32 (n, count), falling.

        The cosines of an approximate index are approximate too. Where there are fewer slices than asked for, places are
        -1 and cosines -inf at the end.

        Args:
            queries: (n, d).
            count: Slices a query, at least 1.

        Raises:
            ArtifactError: A part of the index is missing or not the one that was written.
        """
        return _merged((part.search(unit(queries), count) for part in self._parts()), len(queries), count)

    def rows(self) -> int:
        """Vectors that its files hold.

        Raises:
            ArtifactError: As `search`.
        """
        return sum(int(part.ntotal) for part in self._parts())

    def _parts(self) -> Iterator[Any]:
        for part in self.facts["parts"]:
            index = _read_part(self.directory / part["file"], part, self.facts)
            if self.facts["kind"] != "exact":
                faiss.extract_index_ivf(index).nprobe = self.facts["probes"]
            yield index


def build_index(output: Path, parts: Parts, slice_ids: list[str], dimension: int, exact_most: int, seed: int) -> Index:
    """Write a search index of unit vectors, shard by shard, and measure its recall against an exact search.

    Up to `exact_most` slices it holds them all as they are. Beyond, vectors are sorted into lists around trained
    centres and kept in 8 bits a number (Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57, with FAISS's scalar
    quantiser in place of products): a quarter of the memory, and a search looks into `PROBES` lists.

    Args:
        output: The artifact.
        parts: Vectors of all slices.
        slice_ids: Ids by place.
        dimension: Numbers a vector.
        exact_most: Largest archive that is searched exactly.
        seed: Of the vectors that the lists are trained on, and of the slices that recall is measured with.
    """
    total = len(slice_ids)
    empty = _exact(dimension) if total <= exact_most else _trained(parts, total, dimension, seed)
    files = []
    for number, index in enumerate(_filled(parts, empty)):
        name = f"{FOLDER}/part-{number:06d}.faiss"
        payload = faiss.serialize_index(index).tobytes()
        write_bytes(output / name, payload)
        facts = {"slices": index.ntotal, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        files.append({"file": name} | facts)
    exact = total <= exact_most
    about = {
        "kind": "exact" if exact else "lists of 8-bit vectors",
        "slices": total,
        "dimension": dimension,
        "lists": None if exact else faiss.extract_index_ivf(empty).nlist,
        "probes": None if exact else PROBES,
        "parts": files,
        "slice_ids_digest": digest(slice_ids),
    }
    index = Index(output, about)
    recall = {"at": RECALL_AT, "queries": min(RECALL_QUERIES, total), "value": _recall(index, parts, seed)}
    write_json(output / FACTS, about | {"recall": recall})
    return Index(output, about | {"recall": recall})


def open_index(directory: Path, slice_ids: list[str]) -> Index:
    """Search index of an artifact, for the slices that it was made of.

    Raises:
        ArtifactError: There is none, or it was made of other slices.
    """
    facts = read_json(directory / FACTS)
    if facts["slice_ids_digest"] != digest(slice_ids):
        raise ArtifactError(f"{directory / FACTS} is of other slices than the embeddings; run triage again")
    return Index(directory, facts)


def exact_search(parts: Parts, queries: Single, count: int) -> tuple[Labels, Single]:
    """As `Index.search`, by comparing each query with every vector, shard by shard."""
    blocks = (_brute(queries, places, unit(vectors), count) for places, vectors in parts)
    return _merged(blocks, len(queries), count)


def _brute(queries: Single, places: Labels, vectors: Single, count: int) -> tuple[Single, Labels]:
    cosines, rows = faiss.knn(queries, vectors, min(count, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return cosines, places[rows]


def _merged(found: Iterable[tuple[Single, npt.NDArray[np.int64]]], rows: int, count: int) -> tuple[Labels, Single]:
    """Best of several answers (cosines, places) to the same queries; equal cosines in the order of places."""
    places, cosines = np.full((rows, count), -1, dtype=np.int64), np.full((rows, count), -np.inf, dtype=np.float32)
    for more_cosines, more_places in found:
        missing = more_places < 0
        cosines = np.concatenate([cosines, np.where(missing, -np.inf, more_cosines).astype(np.float32)], axis=1)
        places = np.concatenate([places, more_places], axis=1)
        order = np.lexsort((places, -cosines), axis=1)[:, :count]
        places, cosines = np.take_along_axis(places, order, 1), np.take_along_axis(cosines, order, 1)
    return places, cosines


def _exact(dimension: int) -> Any:
    return faiss.IndexIDMap(faiss.IndexFlatIP(dimension))


def _trained(parts: Parts, total: int, dimension: int, seed: int) -> Any:
    """An index without vectors, whose lists are trained on a draw."""
    drawn = np.zeros(total, dtype=bool)
    drawn[np.random.default_rng(seed).choice(total, min(total, TRAINED_ON), replace=False)] = True
    sample = np.concatenate([unit(vectors[drawn[places]]) for places, vectors in parts])
    lists = max(1, min(MOST_LISTS, len(sample) // 64))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension),
        dimension,
        lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.cp.seed = 1 + seed % (2**31 - 2)
    index.train(sample)
    return index


def _filled(parts: Parts, empty: Any) -> Iterator[Any]:
    """Copies of an empty index, filled with at most `PART_SLICES` vectors each."""
    index = faiss.clone_index(empty)
    for places, vectors in parts:
        start = 0
        while start < len(places):
            stop = start + PART_SLICES - index.ntotal
            index.add_with_ids(unit(vectors[start:stop]), places[start:stop])
            start = stop
            if index.ntotal == PART_SLICES:
                yield index
                index = faiss.clone_index(empty)
    if index.ntotal:
        yield index


def _recall(index: Index, parts: Parts, seed: int) -> float:
    """Share of the true nearest that the index finds, each query itself among them."""
    total = index.facts["slices"]
    asked = np.zeros(total, dtype=bool)
    asked[np.random.default_rng(seed).choice(total, min(RECALL_QUERIES, total), replace=False)] = True
    queries = np.concatenate([unit(vectors[asked[places]]) for places, vectors in parts])
    count = min(RECALL_AT, total)
    true, found = exact_search(parts, queries, count)[0], index.search(queries, count)[0]
    hits = sum(len(set(one) & set(other)) for one, other in zip(true.tolist(), found.tolist(), strict=True))
    return hits / true.size


def _read_part(path: Path, promised: dict[str, Any], facts: dict[str, Any]) -> Any:
    """One part, read only when its size and digest are those that were written: FAISS trusts the bytes it reads."""
    remedy = "run triage again"
    most = promised["slices"] * (4 * facts["dimension"] + 64) + (facts["lists"] or 1) * (4 * facts["dimension"] + 256)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; {remedy}") from error
    if size != promised["bytes"] or size > most + (1 << 20):
        raise ArtifactError(f"{path} has {size} bytes, {promised['bytes']} were written; {remedy}")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != promised["sha256"]:
        raise ArtifactError(f"{path} is not the file that was written; {remedy}")
    index = faiss.deserialize_index(np.frombuffer(payload, dtype=np.uint8))
    if (index.d, index.ntotal) != (facts["dimension"], promised["slices"]):
        raise ArtifactError(f"{path} holds {index.ntotal} vectors of {index.d} numbers; {remedy}")
    return index
