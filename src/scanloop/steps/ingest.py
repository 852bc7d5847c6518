"""Ingest: from a source of images to a catalog of slices, each once, grouped, split and stored in shards."""

import logging
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from tqdm import tqdm

from scanloop.archive.ahead import fetch_ahead
from scanloop.archive.deidentify import read_key, refuse_inside
from scanloop.archive.duplicates import THUMBNAIL_PX, near_duplicate_pairs, perceptual_hashes
from scanloop.archive.intake import Intake, Slice
from scanloop.archive.readers import read
from scanloop.archive.readers.files import listing_digest
from scanloop.archive.shards import FOLDER, ShardWriter
from scanloop.archive.splits import SPLITS, assert_no_leakage, group_ids, shared_key_links, split_by_group
from scanloop.artifacts import write_json, write_table
from scanloop.build import scratch, step
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError, ConfigError
from scanloop.provenance import digest
from scanloop.sources import DicomSource
from scanloop.types import Image

logger = logging.getLogger("scanloop")

EVIDENCE = "deidentification.json"
"""What de-identification kept, withheld and did not do; in catalogs of de-identified archives."""

Pairs: TypeAlias = list[tuple[int, int]]
"""Rows of the manifest that belong together, two by two."""


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


def _sources(config: IngestConfig) -> list[str | None]:
    """Archive, table of labels, and the key of the pseudonyms, which is made here where it is missing."""
    source = config.source
    if isinstance(source, DicomSource) and source.deidentify and source.key_file:
        refuse_inside(Path(source.key_file), Path(source.path), "the archive")
        read_key(Path(source.key_file))
    return [getattr(source, name, None) for name in ("path", "table", "labels", "key_file")]


def _addresses(config: IngestConfig) -> str | None:
    """Digest of the listing of what is read from a store."""
    source = config.source
    locations = [value for name in ("path", "table") if isinstance(value := getattr(source, name, None), str)]
    return listing_digest(locations, getattr(source, "endpoint_url", None))


@step("catalog", sources=_sources, addresses=_addresses)
def ingest(config: IngestConfig, *, output: Path) -> IngestSummary:
    """Catalog of a source: every image that can be read, once, and a row of quarantine for every one that cannot.

    Args:
        config: Source, sizes, near-duplicates and shares of the splits.
        output: Directory of the catalog.

    Raises:
        ArchiveError: The source is missing or holds no image that can be read, or no label.
        ConfigError: The positive class is not among the classes.
    """
    if isinstance(config.source, DicomSource) and config.source.key_file:
        refuse_inside(Path(config.source.key_file), output.parent, "the run's folder")
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    evidence: dict[str, Any] = {}
    shards = ShardWriter(output, config.shard_slices)
    thumbnails_file = scratch(output) / "thumbnails.u8"
    with thumbnails_file.open("wb") as file:
        intake = Intake(config, shards, lambda thumbnail: file.write(thumbnail.tobytes()))
        for raw in tqdm(
            fetch_ahead(read(config, evidence)),
            desc="ingest",
            unit=" images",
            mininterval=0.2 if sys.stderr.isatty() else 5,
        ):
            intake.add(raw)
    slices = intake.finish()
    _refuse_unusable(intake, slices)
    classes = sorted({one.label for one in slices if one.label is not None})
    positive_class = _positive_class(config, classes)
    shape = (-1, THUMBNAIL_PX, THUMBNAIL_PX)
    thumbnails = np.memmap(thumbnails_file, np.uint8, "r").reshape(shape)
    manifest, pairs = _manifest(config, slices, thumbnails)
    assert_no_leakage(manifest)
    _write_tables(output, manifest, slices, intake)
    facts = _facts(config, manifest, slices, intake) | {
        "classes": classes,
        "positive_class": positive_class,
        "near_duplicate_groups": _count_linked(manifest["slice_id"].tolist(), pairs),
        "shards": shards.digests,
    }
    write_json(output / "catalog.json", facts)
    if evidence:
        write_json(output / EVIDENCE, evidence)
    changed = {
        "quarantined": len(intake.refusals),
        "validation": facts["splits"]["validation"],
        "test": facts["splits"]["test"],
    }
    return IngestSummary(**{one.name: (facts | changed)[one.name] for one in fields(IngestSummary)})


def _refuse_unusable(intake: Intake, slices: Sequence[Slice]) -> None:
    """Say what is in quarantine, and stop where nothing is left to work on."""
    reasons = Counter(refusal.reason for refusal in intake.refusals)
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    for refusal in intake.refusals[:5]:
        logger.warning("quarantined: %s: %s: %s", *refusal)
    if len(intake.refusals) > 5:
        logger.warning("quarantined in all: %s; quarantine.parquet lists each", counted)
    if not slices:
        raise ArchiveError(f"none of {intake.uris} images can come in ({counted or 'none found'}); check the source")
    if not any(one.label for one in slices):
        raise ArchiveError(f"none of {len(slices)} slices has a label ({counted or 'all are read'}); label a few first")


def _positive_class(config: IngestConfig, classes: list[str]) -> str:
    if config.positive_class is not None and config.positive_class not in classes:
        raise ConfigError(f"ingest.positive_class: no class {config.positive_class!r}; there are {', '.join(classes)}")
    return config.positive_class or classes[-1]


def _manifest(config: IngestConfig, slices: Sequence[Slice], thumbnails: Image) -> tuple[pd.DataFrame, Pairs]:
    """Rows of the manifest in the order of the shards, and the pairs of rows that look the same."""
    rows = [one.row for one in slices]
    if len(rows) < len(thumbnails):  # slices with conflicting labels have left
        thumbnails = thumbnails[rows]
    hashes = perceptual_hashes(thumbnails)
    found = near_duplicate_pairs(hashes, thumbnails, config.near_duplicate_bits, config.near_duplicate_correlation)
    pairs = [(int(left), int(right)) for left, right in found]
    same_person = shared_key_links([[("patient", *key) for key in one.patients] for one in slices])
    same_study = shared_key_links([[("study", *key) for key in one.studies] for one in slices])
    groups = group_ids([one.slice_id for one in slices], [*pairs, *same_person, *same_study])
    splits = split_by_group(
        groups,
        [one.label for one in slices],
        [one.split for one in slices],
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
    )
    manifest = pd.DataFrame([_row(one) for one in slices])
    return manifest.assign(phash=[f"{value:016x}" for value in hashes.tolist()], group_id=groups, split=splits), pairs


def _row(one: Slice) -> dict[str, Any]:
    return {
        "slice_id": one.slice_id,
        "sha256": one.sha256,
        "frame": one.frame,
        "patient_id": one.patients[0][1] if one.patients else None,
        "study_id": one.studies[0][1] if one.studies else None,
        "site": one.site,
        "modality": one.modality,
        "height": one.height,
        "width": one.width,
        "bits": one.bits,
        "label": one.label,
        "label_source": "source" if one.label is not None else None,
        **one.location._asdict(),
    }


def _write_tables(output: Path, manifest: pd.DataFrame, slices: Sequence[Slice], intake: Intake) -> None:
    sources = [{"slice_id": one.slice_id, "uri": uri} for one in slices for uri, _ in one.uris]
    hidden = [(one.slice_id, one.hidden_label) for one in slices if one.label is None and one.hidden_label is not None]
    write_table(output, "manifest", manifest)
    write_table(output, "sources.parquet", pd.DataFrame(sources))
    write_table(output, "quarantine.parquet", pd.DataFrame(intake.refusals, columns=["uri", "reason", "detail"]))
    attributes = [(one.slice_id, *item) for one in slices for item in sorted(one.attributes.items())]
    if attributes:
        write_table(output, "attributes.parquet", pd.DataFrame(attributes, columns=["slice_id", "name", "value"]))
    write_table(output, "hidden_labels.parquet", pd.DataFrame(hidden, columns=["slice_id", "label"]))


def _facts(config: IngestConfig, manifest: pd.DataFrame, slices: Sequence[Slice], intake: Intake) -> dict[str, Any]:
    labelled = manifest["label"].notna()
    by_split = manifest.groupby("split")
    sizes = manifest["group_id"].value_counts()
    entries = sorted((one.slice_id, one.label) for one in slices)
    accepted = sum(len(one.uris) for one in slices)
    return {
        "name": Path(getattr(config.source, "path", config.source.kind)).absolute().stem,
        "slices": len(slices),
        "uris": intake.uris,
        "exact_copies": accepted - len(slices),
        "labelled": int(labelled.sum()),
        "pool": int((~labelled & (manifest["split"] == "train")).sum()),
        "splits": {name: int((manifest["split"] == name).sum()) for name in SPLITS},
        "split_groups": {**dict.fromkeys(SPLITS, 0), **by_split["group_id"].nunique().to_dict()},
        "groups": len(sizes),
        "largest_group": int(sizes.max()),
        "labelled_with_copies_in_pool": sum(
            one.label is not None and any(label is None for _, label in one.uris) for one in slices
        ),
        "quarantined": dict(Counter(refusal.reason for refusal in intake.refusals)),
        "hidden_labels": sum(one.label is None and one.hidden_label is not None for one in slices),
        "bytes_in": intake.bytes_in,
        "bytes_in_shards": int(manifest["length"].sum()),
        "data_digest": digest(entries),
        "short_side_px": config.short_side_px,
        "min_side_px": config.min_side_px,
        "max_pixels": config.max_pixels,
    }


def _count_linked(slice_ids: list[str], pairs: Pairs) -> int:
    """Sets of more than one slice that near-duplicate pairs alone join."""
    return int((pd.Series(group_ids(slice_ids, pairs)).value_counts() > 1).sum())
