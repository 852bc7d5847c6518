"""Labels out of a feature repository, as they were known at a time: the artifact that the steps learn from."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from scanloop.artifacts import write_json, write_table
from scanloop.build import step
from scanloop.features.training_set import training_set
from scanloop.provenance import digest
from scanloop.sources import Section

COLUMNS = ["slice_id", "label", "readers", "agreement", "adjudicated", "as_of", "purpose"]


@dataclass(frozen=True)
class KnownLabels:
    """How many images were answered by a time, and how many of them with a label."""

    answered: int
    labelled: int


class Answers(Section):
    """What decides the artifact: the rows that were read out of the repository."""

    digest: str


def labels_at(repository: Path, as_of: datetime, output: Path) -> KnownLabels:
    """Write the labels as they were known at a time, a corrected one as it stood then.

    Equal rows give equal bytes, and the key of what was made from them.

    Args:
        repository: Folder of the feature repository.
        as_of: The time, UTC.
        output: Directory for the labels; a folder of their kind that is there is replaced.

    Raises:
        ConfigError: As `open_repository`.
    """
    found = training_set(repository, as_of, views=("label",))
    table = found.loc[found["state"] == "answered", COLUMNS].reset_index(drop=True)
    plain = table.astype(object).where(table.notna(), None)
    return collect(Answers(digest=digest(plain.to_numpy().tolist())), table=plain, output=output)


@step("labels")
def collect(config: Answers, *, table: pd.DataFrame, output: Path) -> KnownLabels:
    """Labels that were known at a time.

    Args:
        config: Digest of the rows.
        table: Rows of `labels.parquet`.
        output: Directory for the labels.
    """
    write_table(output, "labels.parquet", table)
    labelled = int(table["label"].notna().sum())
    facts = {"answered": len(table), "labelled": labelled, "source": "features", "digest": config.digest}
    write_json(output / "labels.json", facts)
    return KnownLabels(len(table), labelled)
