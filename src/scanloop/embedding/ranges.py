"""Shards of a catalog to vectors in a store that several tasks share: what is there is not made again.

Each shard's vectors are one file, written whole or not at all, under a name that says what they were made from and by
what. A task that was killed, and two that own the same shard, do no harm: a shard made twice has the same bytes.
"""

import hashlib
import heapq
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scanloop.archive.shards import Location, read_slice
from scanloop.artifacts import iterate_table, read_json, write_json
from scanloop.config import EmbedConfig
from scanloop.embedding.cache import read_vectors, vectors_path, write_vectors
from scanloop.embedding.encoders import read_encoder
from scanloop.embedding.engine import Engine, Precision
from scanloop.embedding.fidelity import Fidelity, first_faithful
from scanloop.errors import ArtifactError, ConfigError
from scanloop.provenance import code_digest, digest, packages
from scanloop.types import Image

COLUMNS = ("slice_id", "shard", "offset", "length")


@dataclass(frozen=True)
class Shard:
    """A shard's slices.

    Attributes:
        name: Of its file.
        digest: SHA-256 of its bytes.
        slice_ids: Of its slices, in the manifest's order.
        locations: Where each stands.
    """

    name: str
    digest: str
    slice_ids: list[str]
    locations: list[Location]


def shards_of(catalog: Path, wanted: Collection[str] | None = None) -> Iterator[Shard]:
    """Shards of a catalog in the manifest's order, a few thousand rows in memory at a time.

    Args:
        catalog: Artifact of `ingest`.
        wanted: Names of the shards that are asked for; None asks for all.

    Raises:
        ArtifactError: The rows of a shard do not stand together.
    """
    digests = read_json(catalog / "catalog.json")["shards"]
    seen: set[str] = set()
    for name, rows in itertools.groupby(_rows(catalog), key=lambda row: row[1].shard):
        if name in seen:
            raise ArtifactError(f"{catalog}: the rows of {name} do not stand together; run ingest again")
        seen.add(name)
        if wanted is None or name in wanted:
            slices = list(rows)
            yield Shard(name, digests[name], [one for one, _ in slices], [where for _, where in slices])


def part_of(names: Iterable[str], part: str) -> list[str]:
    """Names of the shards that a part owns: a range of them, one after the other.

    Args:
        names: Of all shards.
        part: "K/N": the K-th of N parts, from 1.

    >>> [part_of(["a", "b", "c", "d", "e"], part) for part in ("1/2", "2/2")]
    [['a', 'b'], ['c', 'd', 'e']]

    Raises:
        ConfigError: The part is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"no part {part!r}: it is K/N, the K-th of N parts, for example 1/4")
    number, parts, ordered = int(found[1]), int(found[2]), sorted(names)
    return ordered[(number - 1) * len(ordered) // parts : number * len(ordered) // parts]


class Maker:
    """Makes the vectors of a catalog's shards with one encoder, and finds those that are made.

    Attributes:
        encoder_digest: Of the encoder.
        dimension: Numbers a vector.
        first_dimension: How many of them are the first of two encoders'; None where there is one.
        fidelity: How faithful each precision was that was tried; the last one is that of the vectors.
    """

    def __init__(self, config: EmbedConfig, catalog: Path, encoder: Path, store: Path) -> None:
        """Read the encoder and, unless it is known, find out which precision is faithful.

        Raises:
            ArtifactError: The encoder was prepared for slices of another size than the catalog's.
            ConfigError: The precision is not faithful enough, or cannot be had here.
        """
        self._net, self._preprocess = read_encoder(encoder)
        _require_one_size(read_json(catalog / "catalog.json")["short_side_px"], self._preprocess.archive_px)
        self.encoder_digest = str(read_json(encoder / "encoder.json")["digest"])
        self.dimension, self.first_dimension = self._net.dimension, self._net.first_dimension
        self._config, self._catalog, self._store = config, catalog, store
        self._calibration, self._judges = self._drawn()
        self._engines: dict[str, Engine] = {}
        self.fidelity = self._known_fidelity()
        self._precision = next(reversed(self.fidelity), config.precision)
        self._digest = self._made_by(self._precision)

    def path(self, shard: Shard) -> Path:
        """File of a shard's vectors in the store."""
        return vectors_path(self._store, self._digest, shard.digest)

    def has(self, shard: Shard) -> bool:
        """Whether a shard's vectors are in the store, whole."""
        vectors = read_vectors(self.path(shard))
        return vectors is not None and vectors.shape == (len(shard.slice_ids), self.dimension)

    def fill(self, shards: Iterable[Shard], done: Callable[[int], object]) -> int:
        """Make the vectors of those shards that the store lacks, each committed as soon as it is made.

        Args:
            shards: Asked for one at a time.
            done: Told the number of slices of each shard that is in the store.

        Returns:
            Number of slices that were embedded.
        """

        def missing() -> Iterator[tuple[Shard, list[Location]]]:
            for shard in shards:
                if self.has(shard):
                    done(len(shard.slice_ids))
                else:
                    yield shard, shard.locations

        groups, made = missing(), 0
        for first in groups:  # the engine is made only where a shard is missing
            for shard, vectors in self._engine(self._precision).over(itertools.chain([first], groups), self._read):
                write_vectors(self.path(shard), vectors)
                made += len(vectors)
                done(len(vectors))
        return made

    def _read(self, location: Location) -> Image:
        return read_slice(self._catalog, location)

    def _engine(self, precision: Precision) -> Engine:
        if precision not in self._engines:
            sample = [self._read(location) for location in self._calibration.values()] if precision == "int8" else []
            config = self._config
            self._engines[precision] = Engine(
                self._net,
                self._preprocess,
                config.batch_size,
                precision,
                sample,
                device=config.device,
                compiles=config.compiles,
            )
        return self._engines[precision]

    def _drawn(self) -> tuple[dict[str, Location], dict[str, Location]]:
        """Slices that int8 is calibrated with, and other ones that judge what a precision loses.

        Those of the least digests are drawn, so that most stay the same when the archive grows.
        """
        config = self._config
        if config.precision == "float32":
            return {}, {}
        draws = (
            (hashlib.sha256(f"{config.seed}:{slice_id}".encode()).digest(), slice_id, location)
            for slice_id, location in _rows(self._catalog)
        )
        least = heapq.nsmallest(config.calibration_slices + config.fidelity_slices, draws)
        drawn = [(slice_id, location) for _, slice_id, location in least]
        return dict(drawn[: config.calibration_slices]), dict(drawn[-config.fidelity_slices :])

    def _made_by(self, precision: str) -> str:
        """Digest of all that decides the vectors of a given shard, to the bit."""
        config = self._config
        calibrated_with = list(self._calibration) if precision == "int8" else []
        how = [config.batch_size, precision, config.device, config.compiles, calibrated_with]
        return digest([self.encoder_digest, *how, code_digest(__name__), packages()])

    def _known_fidelity(self) -> dict[Precision, Fidelity]:
        """Fidelity of the precisions that were tried, from the store where an earlier task left it there."""
        config = self._config
        if config.precision == "float32":
            return {}
        asked = [self._made_by(config.precision), list(self._judges), config.min_cosine, config.fall_back]
        path = self._store / f"{digest(asked)[:16]}.fidelity.json"
        if path.is_file():
            known: dict[str, Any] = read_json(path)["precisions"]
            order: list[Precision] = read_json(path)["order"]
            return {precision: Fidelity(**known[precision]) for precision in order}
        slices = [self._read(location) for location in self._judges.values()]
        found = first_faithful(config, lambda precision: self._engine(precision)(slices))
        write_json(path, {"precisions": found, "order": list(found)})
        return found


def _rows(catalog: Path) -> Iterator[tuple[str, Location]]:
    """Id and place of each slice of the manifest."""
    for frame in iterate_table(catalog, "manifest", COLUMNS):
        columns = [_column(frame, name) for name in COLUMNS]
        yield from zip(columns[0], map(Location, *columns[1:]), strict=True)


def _column(frame: pd.DataFrame, name: str) -> list[Any]:
    return frame[name].tolist()


def _require_one_size(catalog_px: int, encoder_px: int) -> None:
    """Return if an image that is served will be shrunk as the catalog's slices were."""
    if catalog_px != encoder_px:
        raise ArtifactError(
            f"the catalog's slices were shrunk to {catalog_px} px, the encoder was prepared for {encoder_px}; run "
            f"pretrain on this catalog, or set ingest.short_side_px to {encoder_px}"
        )
