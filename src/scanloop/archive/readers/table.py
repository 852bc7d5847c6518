"""Files that a table names, with what its columns say of each: label, patient, study, site, modality, split."""

import csv
import io
import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.archive.identities import hidden_order
from scanloop.archive.readers.files import SourceFile, later, list_files, read_bytes, read_whole
from scanloop.archive.readers.labels import kept_labels
from scanloop.archive.readers.record import RawImage
from scanloop.errors import ArchiveError, ConfigError, ImageError
from scanloop.sources import TableSource
from scanloop.storage.address import archive_name

logger = logging.getLogger("scanloop")

_FORMULA = re.compile(r"\s*([=@]|[+-](?![\d.]*$))")
"""How a cell starts that a spreadsheet would compute; "-", "+" and numbers with a sign are none."""


def read_table(source: TableSource) -> Iterator[RawImage]:
    """Every file that the table names, sorted by uri; those that are not there come with the fault that says so.

    A cell of the path column is a path inside, or the last part of one where only one file has it. Rows that stand
    twice count once. Files that no row names, and rows whose findings no class takes, are counted and logged.

    Raises:
        ArchiveError: The archive or the table is missing or broken, or no row names a file.
        ConfigError: The table lacks a column that the configuration names.
    """
    yield from _hidden(source, _images(source))


def _images(source: TableSource) -> list[RawImage]:
    """Images that the table names, in the order in which they are read; rows and listing are gone by then."""
    root = archive_name(source.path)
    files = {file.inside: file for file in list_files(source.path, source.endpoint_url)}
    rows = _rows(source, files)
    images: dict[str, RawImage] = {}
    aside, find = 0, _finder(files)
    for number, row in enumerate(rows, 1):
        image, wanted = _image(source, root, find, row, number)
        aside += not wanted
        if wanted:
            images[image.uri] = _joined(images.get(image.uri), image)
    named = {image.uri for image in images.values()}
    unnamed = sum(f"{root}/{inside}" not in named for inside in files)
    logger.info("%s: %d rows of other findings and %d files that no row names are left aside", root, aside, unnamed)
    if not any(image.fault is None for image in images.values()):
        raise ArchiveError(
            f"{source.table}: none of {len(rows)} rows names a file of {root}; check columns and classes"
        )
    order = hidden_order(source)
    ranked = sorted(images, key=lambda uri: order(uri.removeprefix(f"{root}/")))
    return [images[uri] for uri in ranked]


def _rows(source: TableSource, files: Mapping[str, SourceFile]) -> list[dict[str, str]]:
    """Rows of the table with the columns that the configuration names, as text without blanks around it."""
    file = files.get(posixpath.normpath(source.table))
    try:
        payload = read_whole(source.table, source.endpoint_url) if file is None else read_bytes(file)
        columns, rows = _parse(payload, Path(source.table).suffix.lower())
    except ImageError as error:
        raise ArchiveError(f"{source.table}: {error.detail}") from error
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ArchiveError(f"{source.table}: not a readable table ({error}); save it as CSV in UTF-8") from error
    wanted = {**source.columns, **source.attributes}
    if missing := sorted({column for column in wanted.values() if column not in columns}):
        raise ConfigError(
            f"{source.table} has no column {', '.join(map(repr, missing))}; it has {', '.join(columns)}: "
            "correct ingest.source.columns"
        )
    return [{name: str(row.get(column) or "").strip() for name, column in wanted.items()} for row in rows]


def _parse(payload: bytes, suffix: str) -> tuple[list[str], list[dict[str, Any]]]:
    if suffix == ".parquet":
        table = pq.read_table(pa.BufferReader(payload))
        return table.column_names, table.to_pylist()
    reader = csv.DictReader(
        io.StringIO(payload.decode("utf-8-sig"), newline=""), delimiter="\t" if suffix == ".tsv" else ","
    )
    rows = list(reader)
    return list(reader.fieldnames or []), rows


def _finder(files: Mapping[str, SourceFile]) -> Mapping[str, list[SourceFile]]:
    """Files by their path inside and by its last part."""
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for inside, file in files.items():
        for name in {inside, posixpath.basename(inside)}:
            found[name].append(file)
    return found | {inside: [file] for inside, file in files.items()}


def _image(
    source: TableSource, root: str, find: Mapping[str, list[SourceFile]], row: dict[str, str], number: int
) -> tuple[RawImage, bool]:
    """The image of a row, and whether its findings are wanted."""
    fault: ImageError | None = None
    file: SourceFile | None = None
    label, wanted = _class_of(row.get("label", ""), source)
    try:
        _refuse_formulas(row)
        file = _file(find, row["path"])
    except ImageError as error:
        fault = error.with_traceback(None)
    safe = fault is None or fault.reason != "unsafe_cell"
    return RawImage(
        uri=f"{root}/{file.inside if file else row['path']}" if safe and row["path"] else f"{root}/#row{number:09d}",
        payload=later(file) if file else b"",
        label=label if safe else None,
        **{name: row.get(name) or None if safe else None for name in ("patient_id", "study_id", "site", "modality")},  # type: ignore[arg-type]  # all four are text
        attributes={name: row[name] for name in source.attributes if row[name] and safe},
        split=source.splits.get(row.get("split", "")),
        fault=fault,
        version=file.version if file else None,
    ), wanted


def _class_of(cell: str, source: TableSource) -> tuple[str | None, bool]:
    """Class of a cell of findings, None where it is empty; and whether the image is wanted at all."""
    findings = [part.strip() for part in cell.split(source.label_separator)] if source.label_separator else [cell]
    if not cell or not source.classes:
        return cell or None, True
    label = next((name for finding, name in source.classes.items() if finding in findings), source.other_class)
    return label, label is not None


def _refuse_formulas(row: dict[str, str]) -> None:
    for name, cell in row.items():
        if _FORMULA.match(cell):
            raise ImageError("unsafe_cell", f"the table's {name} is a formula")


def _file(find: Mapping[str, list[SourceFile]], cell: str) -> SourceFile:
    path = posixpath.normpath(cell.replace("\\", "/")) if cell else ""
    if path.startswith(("/", "..")) or re.match(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*:/", path):
        raise ImageError("unsafe_cell", "the table names a path outside of the archive")
    found = find.get(path, [])
    if not found:
        raise ImageError("missing_file", "the table names a file that is not in the archive")
    if len(found) > 1:
        raise ImageError("missing_file", f"{len(found)} files of the archive have this name; give the path inside")
    return found[0]


def _joined(first: RawImage | None, second: RawImage) -> RawImage:
    """One image of two rows of the same file; what they contradict each other in is a fault."""
    if first is None or first.fault is not None:
        return first or second
    told = [(image.label, image.patient_id, image.split) for image in (first, second)]
    if told[0] == told[1]:
        return first
    fault = ImageError("conflicting_labels", "two rows of the table say different things of this file")
    return RawImage(first.uri, b"", fault=fault)


def _hidden(source: TableSource, images: list[RawImage]) -> Iterator[RawImage]:
    """The images, with all but `labelled` of the labels of the training part hidden."""
    in_training = [image.label if image.split in {None, "train"} else None for image in images]
    kept = kept_labels(in_training, source.labelled, source.seed)
    for image, own, keep in zip(images, in_training, kept, strict=True):
        yield image if keep or own is None else replace(image, label=None, hidden_label=own)
