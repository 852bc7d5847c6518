"""A table of labels beside an archive: a CSV whose one other column says what each label is given to."""

import csv
from pathlib import Path

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
