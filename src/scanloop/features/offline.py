"""The offline store: every fact with the time from which it was known, in Parquet files that are only added."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from scanloop.errors import ArtifactError
from scanloop.features.events import Fact, bought_labels, facts_of
from scanloop.features.views import ENTITY, KEY, TIME, VIEWS, files_of, folder_of, schema_of
from scanloop.provenance import digest

GROUP_ROWS = 65_536
"""Rows of a file that a reader holds at once."""


def write(repository: Path, run: Path) -> dict[str, int]:
    """Add what a run's artifacts say to the offline store: rows added, by view; the same artifacts again add none.

    What was known at one time stands in one file of its view, named by that time: an artifact that is made again as of
    the same time takes its file's place, one of another time stands beside it. Of labels only the news are added. A
    label of an earlier export that the newest export of the label store lacks is withdrawn, as of that export's newest
    label.

    Args:
        repository: Folder of the feature repository.
        run: Folder of a run.

    Raises:
        ArtifactError: An artifact is damaged, or says two labels of one slice and time.
    """
    repository.mkdir(parents=True, exist_ok=True)
    added = dict.fromkeys(VIEWS, 0)
    with FileLock(repository / ".write.lock"):
        for fact in facts_of(run):
            added[fact.view] += _add(repository, fact)
        if (found := bought_labels(run)) is not None:
            added["label"] += _add_labels(repository, *found)
    return added


def read_labels(repository: Path) -> pd.DataFrame:
    """All rows of the view "label", oldest first; what readers gave fits in memory.

    Raises:
        ArtifactError: A file is damaged.
    """
    schema = schema_of("label")
    tables = [_read(path, schema) for path in files_of(repository, "label")]
    table = pa.concat_tables([schema.empty_table(), *tables])
    frame: pd.DataFrame = _plain(table.to_pandas())
    return frame.sort_values([TIME, ENTITY], kind="stable", ignore_index=True)


def key_of(path: Path) -> str:
    """Key of the artifact that a file's rows were read from."""
    return str((pq.read_schema(path).metadata or {}).get(KEY, b"").decode())


def name_at(at: datetime) -> str:
    """Name of a file of what is known from a time on; names sort as their times do."""
    return f"{at:%Y%m%dT%H%M%S%f}Z"


def _add(repository: Path, fact: Fact) -> int:
    path = folder_of(repository, fact.view) / f"{name_at(fact.at)}.parquet"
    if path.exists() and key_of(path) == fact.key:
        return 0
    return _write(path, fact.view, (_stamped(frame, fact.at) for frame in fact.frames), fact.key)


def _add_labels(repository: Path, table: pd.DataFrame, missing_is_withdrawn: bool) -> int:
    known = read_labels(repository)
    news = table if known.empty else _news(table, known)
    if missing_is_withdrawn and len(known) and len(table):
        news = pd.concat([news, _withdrawn(table, known)], ignore_index=True)
    if news.empty:
        return 0
    news = news.sort_values([TIME, ENTITY], kind="stable")
    key = digest([str(one) for one in news[[ENTITY, TIME, "state", "label"]].itertuples(index=False)])
    path = folder_of(repository, "label") / f"{name_at(news[TIME].max())}-{key[:16]}.parquet"
    return _write(path, "label", [news], key)


def _news(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Rows of a slice and time that are not known yet."""
    both = table.merge(known, on=[ENTITY, TIME], how="left", suffixes=("", "_known"), indicator=True)
    is_known = (both["_merge"] == "both").to_numpy()
    same = (both["label"].fillna("") == both["label_known"].fillna("")).to_numpy()
    same &= (both["state_known"] != "withdrawn").to_numpy()
    if (is_known & ~same).any():
        row = both[is_known & ~same].iloc[0]
        raise ArtifactError(
            f"slice {row[ENTITY][:16]} is labelled {row['label']!r} as of {row['as_of']}, and was "
            f"{row['label_known']!r} as of the same time: labels of two stores, or of an oracle that changed; set "
            "another oracle.as_of, or write into a new repository"
        )
    news: pd.DataFrame = table[~is_known]
    return news


def _withdrawn(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Rows that take back what is known and stands in no newer table: as of its newest label, when it was gone."""
    newest = table[TIME].max()
    last = known.drop_duplicates(ENTITY, keep="last")
    gone = last[(last["state"] == "answered") & (last[TIME] < newest) & ~last[ENTITY].isin(set(table[ENTITY]))]
    taken: pd.DataFrame = gone[[ENTITY]].assign(state="withdrawn")
    taken[TIME] = newest
    return taken


def _stamped(frame: pd.DataFrame, at: datetime) -> pd.DataFrame:
    stamped = frame.copy()
    stamped[TIME] = at
    return stamped


def _write(path: Path, view: str, frames: Iterable[pd.DataFrame], key: str) -> int:
    """Write a file of rows, whole or not at all."""
    schema = schema_of(view).with_metadata({KEY: key.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, rows = path.with_name(f".{path.name}.tmp"), 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for frame in frames:
                table = pa.Table.from_pandas(frame.reindex(columns=schema.names), schema, preserve_index=False)
                writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=GROUP_ROWS)
                rows += len(frame)
        if rows:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read().select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); remove it and write the run's artifacts again") from error


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    for name in ("label", "state", "as_of", "purpose"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame
