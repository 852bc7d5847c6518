"""Labels: a table of them beside an archive, and which of those that are known a run starts with."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scanloop.errors import ArchiveError, ConfigError

KEYS = ("path", "object_id", "series_id", "study_id", "patient_id")
"""Columns that a label can be given by: the path inside the archive, or an id of the header."""


def read_labels(path: Path) -> tuple[str, dict[str, str]]:
    """Name of the column that keys the labels, and the label of each key; rows without a label are left out.

    Raises:
        ArchiveError: The table is missing or is no CSV in UTF-8.
        ConfigError: It lacks the column "label" or a column of `KEYS`, or labels one key twice, differently.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{path}: not a readable CSV ({error}); set ingest.source.labels") from error
    keys = [name for name in KEYS if name in columns]
    if "label" not in columns or len(keys) != 1:
        raise ConfigError(f"{path}: needs the column 'label' and exactly one of {', '.join(KEYS)}")
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        key, label = (row[keys[0]] or "").strip(), (row["label"] or "").strip()
        if label and labels.setdefault(key, label) != label:
            raise ConfigError(f"{path}, line {number}: its {keys[0]} has two labels, {labels[key]} and {label}")
    return keys[0], labels


def kept_labels(labels: Sequence[str | None], count: int | None, seed: int) -> list[bool]:
    """Whether each label is known from the start; the others are hidden.

    Args:
        labels: Class of each image, None where it has none to keep or hide.
        count: Labels to keep, drawn by `draw_stratified`; None keeps all.
        seed: Of the draw.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    kept = np.ones(len(labels), bool)
    if count is not None and rows:
        _, classes = np.unique([str(labels[row]) for row in rows], return_inverse=True)
        kept[rows] = draw_stratified(classes.astype(np.int64), count, seed)
    return [bool(keep) for keep in kept]


def draw_stratified(classes: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.bool_]:
    """Rows to draw so that each class has its share, and at least one row.

    Args:
        classes: int64 (n,).
        count: Rows to draw; all of them when there are not more.
        seed: Of the draw.

    Returns:
        bool (n,), true for a drawn row.
    """
    drawn = np.zeros(len(classes), bool)
    values, sizes = np.unique(classes, return_counts=True)
    if count >= len(classes):
        return ~drawn
    ideal = sizes * count / max(1, len(classes))
    quotas = np.maximum(1, np.floor(ideal)).astype(int)
    while quotas.sum() < count:  # the largest remainder first
        quotas[np.argmax(np.where(quotas < sizes, ideal - quotas, -np.inf))] += 1
    while quotas.sum() > max(count, len(values)):
        quotas[np.argmax(quotas)] -= 1
    generator = np.random.default_rng(seed)
    for value, quota in zip(values, quotas, strict=True):
        drawn[generator.permutation(np.flatnonzero(classes == value))[:quota]] = True
    return drawn
