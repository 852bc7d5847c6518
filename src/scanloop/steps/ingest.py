"""Ingest: from a source of images to a catalog of slices, each once, grouped, split and stored in shards."""

import logging
import shutil
import sys
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scanloop.archive.burned_in import ATTRIBUTE
from scanloop.archive.catalog import data_digest, drop_unusable, group_and_split, write_split_lists, write_tables
from scanloop.archive.deidentify import read_key, refuse_inside
from scanloop.archive.duplicates import ThumbnailFile
from scanloop.archive.extension import take_over
from scanloop.archive.intake import Intake
from scanloop.archive.journal import Journal
from scanloop.archive.readers import read
from scanloop.archive.shards import FOLDER, ShardWriter
from scanloop.archive.splits import SPLITS
from scanloop.artifacts import write_json
from scanloop.build import scratch, step
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError, ConfigError
from scanloop.provenance import Source
from scanloop.sources import PatientSource
from scanloop.storage.address import is_remote, local_path

logger = logging.getLogger("scanloop")

EVIDENCE = "deidentification.json"
"""What de-identification kept, withheld and did not do; in catalogs of de-identified archives."""


_REASONS = "SELECT reason, count(*) FROM images WHERE row IS NULL GROUP BY reason ORDER BY reason"
_ENTRIES = "SELECT lower(hex(slice_id)), label FROM slices ORDER BY slice_id"
_LABELLED_WITH_COPIES = """
    SELECT count(*) FROM slices WHERE label IS NOT NULL
    AND EXISTS (SELECT 1 FROM images WHERE images.row = slices.row AND images.label IS NULL)
"""


@dataclass(frozen=True)
class IngestSummary:
    """What came in.

    Attributes:
        uris: Images found in the source.
        slices: Distinct slices that came in.
        exact_copies: Images whose bytes another uri holds as well.
        quarantined: Images that could not come in.
        labelled: Slices with a label.
        pool: Train slices without one.
        groups: Groups that a split never cuts.
        near_duplicate_groups: Sets of slices that look the same although their bytes differ.
        classes: Names of the classes, sorted.
        positive_class: Class whose probability the tables list.
        validation: Slices held out for validation.
        test: Slices held out for the test.
        data_digest: Digest of the slices' ids and labels.
    """

    uris: int
    slices: int
    exact_copies: int
    quarantined: int
    labelled: int
    pool: int
    groups: int
    near_duplicate_groups: int
    classes: list[str]
    positive_class: str
    validation: int
    test: int
    data_digest: str


def _sources(config: IngestConfig) -> list[Source]:
    """Archive, tables, base, and the key of the pseudonyms, which is made here where it is missing."""
    source = config.source
    if isinstance(source, PatientSource) and source.deidentify and source.key_file:
        if not is_remote(source.path):
            refuse_inside(Path(source.key_file), local_path(source.path), "the archive")
        read_key(Path(source.key_file))
    stored = [getattr(source, name, None) for name in ("path", "labels", "table")]
    endpoint_url = getattr(source, "endpoint_url", None)
    local = [getattr(source, "key_file", None), config.base]
    return [Source(one, endpoint_url) for one in stored if one] + [Source(one) for one in local if one]


@step("catalog", sources=_sources)
def ingest(config: IngestConfig, *, output: Path) -> IngestSummary:
    """Catalog of a source: every image that can be read, once, and a row of quarantine for every one that cannot.

    Args:
        config: Source, sizes, near-duplicates and shares of the splits.
        output: Directory of the catalog.

    Raises:
        ArchiveError: The source is missing or holds no image that can be read, or no label.
        ConfigError: The positive class is not among the classes.
    """
    if isinstance(config.source, PatientSource) and config.source.key_file:
        refuse_inside(Path(config.source.key_file), output.parent, "the run's folder")
    evidence: dict[str, Any] = {}
    with closing(Journal(scratch(output) / "journal.sqlite")) as journal:
        if not journal.has_begun:
            shutil.rmtree(output / FOLDER, ignore_errors=True)
            if config.base is None:
                journal.begin_own(0)
            else:
                take_over(journal, Path(config.base), output, config)
        thumbnails = _take_in(config, journal, output, evidence)
        _refuse_unusable(journal)
        positive_class = _positive_class(config, _classes(journal))
        near_duplicates = group_and_split(journal, config, output, thumbnails)
        write_split_lists(journal, output)
        write_tables(journal, output)
        facts = _facts(config, journal) | {"positive_class": positive_class} | near_duplicates
        evidence |= _text_evidence(journal) if evidence else {}
    write_json(output / "catalog.json", facts)
    if evidence:
        write_json(output / EVIDENCE, evidence)
    changed = {
        "quarantined": sum(facts["quarantined"].values()),
        "validation": facts["splits"]["validation"],
        "test": facts["splits"]["test"],
    }
    return IngestSummary(**{one.name: (facts | changed)[one.name] for one in fields(IngestSummary)})


def _take_in(config: IngestConfig, journal: Journal, output: Path, evidence: dict[str, Any]) -> ThumbnailFile:
    """Read what the journal does not know yet, and write it into shards."""
    digests = journal.digests()
    for path in (output / FOLDER).glob("*"):
        if path.name not in digests:  # of a process that was killed before the journal knew
            path.unlink()
    thumbnails = ThumbnailFile(scratch(output) / "thumbnails.u8", journal.rows - journal.first_own_row)
    intake = Intake(config, journal, ShardWriter(output, config.shard_slices, digests), thumbnails)
    unsettled = True
    while unsettled:
        images = intake.take(read(config, evidence, journal.recall_base))
        for _ in tqdm(images, desc="ingest", unit=" images", mininterval=0.2 if sys.stderr.isatty() else 5):
            pass
        unsettled = journal.settle()
    drop_unusable(journal, output)
    return thumbnails


def _refuse_unusable(journal: Journal) -> None:
    """Say what is in quarantine, and stop where nothing is left to work on."""
    reasons = dict(journal.query(_REASONS))
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    sql = "SELECT uri, reason, detail FROM images WHERE row IS NULL ORDER BY uri LIMIT 5"
    for refusal in list(journal.query(sql)):
        logger.warning("quarantined: %s: %s: %s", *refusal)
    if sum(reasons.values()) > 5:
        logger.warning("quarantined in all: %s; quarantine.parquet lists each", counted)
    uris, slices = journal.one("SELECT count(*) FROM images"), journal.one("SELECT count(*) FROM slices")
    if not slices:
        raise ArchiveError(f"none of {uris} images can come in ({counted or 'none found'}); check the source")
    if not _classes(journal):
        raise ArchiveError(f"none of {slices} slices has a label ({counted or 'all are read'}); label a few first")


def _classes(journal: Journal) -> list[str]:
    """Names of the classes, sorted."""
    return [
        name for (name,) in journal.query("SELECT DISTINCT label FROM slices WHERE label IS NOT NULL ORDER BY label")
    ]


def _positive_class(config: IngestConfig, classes: list[str]) -> str:
    if config.positive_class is not None and config.positive_class not in classes:
        raise ConfigError(f"ingest.positive_class: no class {config.positive_class!r}; there are {', '.join(classes)}")
    return config.positive_class or classes[-1]


def _facts(config: IngestConfig, journal: Journal) -> dict[str, Any]:
    one, by_split = journal.one, dict.fromkeys(SPLITS, 0)
    splits = {SPLITS[code]: n for code, n in journal.query("SELECT split, count(*) FROM slices GROUP BY split")}
    groups = journal.query("SELECT split, count(DISTINCT group_id) FROM slices GROUP BY split")
    slices = one("SELECT count(*) FROM slices")
    return {
        "name": Path(getattr(config.source, "path", config.source.kind)).absolute().stem,
        "classes": _classes(journal),
        "slices": slices,
        "uris": one("SELECT count(*) FROM images"),
        "exact_copies": one("SELECT count(*) FROM images WHERE row IS NOT NULL") - slices,
        "labelled": one("SELECT count(*) FROM slices WHERE label IS NOT NULL"),
        "pool": one("SELECT count(*) FROM slices WHERE label IS NULL AND split = ?", (SPLITS.index("train"),)),
        "splits": by_split | splits,
        "split_groups": by_split | {SPLITS[code]: count for code, count in groups},
        "groups": one("SELECT count(DISTINCT group_id) FROM slices"),
        "largest_group": one("SELECT max(n) FROM (SELECT count(*) AS n FROM slices GROUP BY group_id)"),
        "labelled_with_copies_in_pool": one(_LABELLED_WITH_COPIES),
        "quarantined": dict(journal.query(_REASONS)),
        "hidden_labels": one("SELECT count(*) FROM slices WHERE label IS NULL AND hidden_label IS NOT NULL"),
        "bytes_in": one("SELECT sum(bytes) FROM images"),
        "bytes_in_shards": one("SELECT sum(length) FROM slices"),
        "shards": journal.digests(),
        "data_digest": data_digest(journal.query(_ENTRIES)),
        "short_side_px": config.short_side_px,
        "min_side_px": config.min_side_px,
        "max_pixels": config.max_pixels,
    }


def _text_evidence(journal: Journal) -> dict[str, Any]:
    """What `deidentification.json` says of text in pixels."""
    slices = journal.one("SELECT count(*) FROM slices")
    suspected = journal.one("SELECT count(*) FROM attributes JOIN slices USING (row) WHERE name = ?", (ATTRIBUTE,))
    quarantined = journal.one("SELECT count(*) FROM images WHERE reason = ?", (ATTRIBUTE,))
    counts = {"slices": slices, "suspected": suspected, "quarantined": quarantined}
    return {ATTRIBUTE: counts | {"suspected_share": suspected / slices}}
