"""Squares of image files and of a catalog's slices, decoded ahead."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scanloop.archive.dicom.reader import DicomReader, is_dicom
from scanloop.archive.shards import Location, read_slice
from scanloop.artifacts import iterate_table, read_table
from scanloop.bundle.predict import Bundle
from scanloop.errors import ImageError
from scanloop.scoring.images import read_image_file
from scanloop.scoring.scorer import Pace, Square, in_order


@dataclass(frozen=True)
class Slice:
    """A row of a catalog: its id, where it came from, where its PNG stands."""

    slice_id: str
    uri: str
    location: Location


def squares_of_files(bundle: Bundle, paths: Sequence[Path], pace: Pace) -> Iterator[Square]:
    """Squares of image files, DICOM objects of one frame among them, in order."""
    dicom = DicomReader(bundle.min_side_px, bundle.max_pixels, bundle.preprocess.archive_px)

    def square(path: Path) -> Square:
        try:
            payload = read_image_file(path)
            image = dicom.read(payload, None) if is_dicom(payload) else bundle.decode(payload)
            return Square(str(path), None, bundle.preprocess.square(image))
        except ImageError as error:
            return Square(str(path), None, error)

    try:
        yield from in_order(square, paths, pace.decoders, 2 * pace.batch + pace.decoders)
    finally:
        dicom.close()


def squares_of_slices(bundle: Bundle, catalog: Path, slices: Sequence[Slice], pace: Pace) -> Iterator[Square]:
    """Squares of a catalog's slices, in order.

    Raises:
        ArtifactError: A shard is missing or damaged.
    """

    def square(one: Slice) -> Square:
        return Square(one.uri, one.slice_id, bundle.preprocess.square(read_slice(catalog, one.location)))

    return in_order(square, slices, pace.decoders, 2 * pace.batch + pace.decoders)


def slices_by_shard(catalog: Path, without: Collection[str]) -> Iterator[list[Slice]]:
    """Slices of a catalog, a list a shard, in the manifest's order, without those of these ids.

    A slice's uri is the first of those that it came under.

    Raises:
        ArtifactError: A table is missing or damaged.
    """
    sources = read_table(catalog, "sources.parquet", ["slice_id", "uri"]).drop_duplicates("slice_id")
    uris = sources.set_index("slice_id")["uri"]
    shard: list[Slice] = []
    for frame in iterate_table(catalog, "manifest", ["slice_id", "shard", "offset", "length"]):
        for one in slices_of(frame[~frame["slice_id"].isin(without)], uris):
            if shard and shard[0].location.shard != one.location.shard:
                yield shard
                shard = []
            shard.append(one)
    if shard:
        yield shard


def slices_of(rows: pd.DataFrame, uris: "pd.Series[str]") -> Iterator[Slice]:
    """Slices of rows of a manifest; a slice without a uri is named by its id."""
    found = uris.reindex(rows["slice_id"]).tolist()
    columns = (rows[name].tolist() for name in ("slice_id", "shard", "offset", "length"))
    for uri, slice_id, shard, offset, length in zip(found, *columns, strict=True):
        yield Slice(slice_id, uri if isinstance(uri, str) else slice_id, Location(shard, offset, length))
