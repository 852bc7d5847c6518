"""Take a patient's slices out of shards, and their vectors out of embeddings and cache: whole files, by name."""

import tarfile
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanloop.archive.catalog import data_digest
from scanloop.archive.shards import FOLDER, keep_only
from scanloop.archive.splits import SPLITS
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.embedding.cache import read_vectors, vectors_path, write_vectors
from scanloop.erasure.subject import Subject
from scanloop.erasure.texts import write_parquet
from scanloop.provenance import file_digest

CACHE = ".embeddings"


def erase_slices(catalog: Path, subject: Subject) -> None:
    """Write each shard that holds a slice of the patient again without it, and the manifest with the new places."""
    leaving = set(subject.slice_ids)
    for shard in subject.shards:
        path = catalog / FOLDER / shard
        if not path.exists():
            continue
        with tarfile.open(path, "r:") as tar:
            held = {name.removesuffix(".png") for name in tar.getnames()}
        if leaving & held:
            keep_only(catalog, shard, held - leaving)
    for part in sorted((catalog / "manifest").glob("*.parquet")):
        _place(part, catalog, subject)


def _place(part: Path, catalog: Path, subject: Subject) -> None:
    """Rows of a part of the manifest without the patient's, each with the place where its slice stands now."""
    table = pq.read_table(part)
    rows = table.filter(pc.invert(pc.is_in(table["slice_id"], value_set=pa.array(subject.slice_ids, pa.string()))))
    places: dict[str, tuple[int, int]] = {}
    for shard in sorted(set(rows["shard"].to_pylist()) & set(subject.shards)):
        with tarfile.open(catalog / FOLDER / shard, "r:") as tar:
            places |= {one.name.removesuffix(".png"): (one.offset_data, one.size) for one in tar}
    ids = rows["slice_id"].to_pylist()
    for column, (name, old) in enumerate((name, rows[name].to_pylist()) for name in ("offset", "length")):
        values = [places[one][column] if one in places else was for one, was in zip(ids, old, strict=True)]
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.int64()))
    if not rows.equals(table):
        write_parquet(part, rows)


def erase_vectors(embeddings: Path, catalog: Path, subject: Subject) -> None:
    """Write the vectors of each such shard again without the patient's, under the name of what the shard is now."""
    facts, index = read_json(embeddings / "embeddings.json"), pq.read_table(embeddings / "index.parquet")
    for shard, was in subject.shards.items():
        old = vectors_path(embeddings, facts["encoder_digest"], str(was["digest"]))
        facts["files"].pop(shard, None)
        new = _shrink_vectors(old, catalog / FOLDER / shard, was)
        if new is not None:
            facts["files"][shard] = str(new.relative_to(embeddings))
    index = index.filter(pc.invert(pc.is_in(index["slice_id"], value_set=pa.array(subject.slice_ids, pa.string()))))
    frame = index.to_pandas()
    frame["row"] = frame.groupby("shard").cumcount()
    table = pa.Table.from_pandas(frame, schema=index.schema, preserve_index=False)
    write_parquet(embeddings / "index.parquet", table)
    write_json(embeddings / "embeddings.json", facts)
    for was in subject.shards.values():
        vectors_path(embeddings, facts["encoder_digest"], str(was["digest"])).unlink(missing_ok=True)


def erase_cached_vectors(cache: Path, catalog: Path, subject: Subject) -> None:
    """As `erase_vectors`, of every encoder that left vectors beside the artifacts: what stays is not embedded again."""
    for shard, was in subject.shards.items():
        for maker in sorted(path for path in cache.iterdir() if path.is_dir()):
            old = vectors_path(cache, maker.name, str(was["digest"]))
            _shrink_vectors(old, catalog / FOLDER / shard, was)
            old.unlink(missing_ok=True)


def _shrink_vectors(old: Path, shard: Path, was: dict[str, Any]) -> Path | None:
    """File of the vectors that stay, beside the old one, which is left; None where none stay or none were there."""
    if not shard.exists():
        return None
    new = vectors_path(old.parent.parent, old.parent.name, file_digest(shard))
    vectors = read_vectors(old) if old.exists() else None
    if vectors is not None and new != old:
        write_vectors(new, vectors[np.array(was["kept"], dtype=np.int64)])
    return new if new.exists() else None


def count_again(catalog: Path, subject: Subject) -> dict[str, Any]:
    """Bring `catalog.json` to what the tables hold now, and return it; bytes that came in are history and stay."""
    facts, manifest = read_json(catalog / "catalog.json"), read_table(catalog, "manifest")
    sources, hidden = read_table(catalog, "sources.parquet"), read_table(catalog, "hidden_labels.parquet")
    quarantine, by_split = read_table(catalog, "quarantine.parquet"), manifest.groupby("split")
    labelled, sizes = manifest["label"].notna(), manifest["group_id"].value_counts()
    unlabelled = sources.loc[sources["given_label"].isna(), "slice_id"]
    shards = {
        name: file_digest(catalog / FOLDER / name) if name in subject.shards else was
        for name, was in facts["shards"].items()
        if (catalog / FOLDER / name).exists()
    }
    entries = sorted(zip(manifest["slice_id"], manifest["label"], strict=True), key=itemgetter(0))
    counted: dict[str, Any] = {
        "slices": len(manifest),
        "uris": len(sources) + len(quarantine),
        "exact_copies": len(sources) - len(manifest),
        "labelled": int(labelled.sum()),
        "pool": int((~labelled & (manifest["split"] == "train")).sum()),
        "splits": {name: int((manifest["split"] == name).sum()) for name in SPLITS},
        "split_groups": dict.fromkeys(SPLITS, 0) | by_split["group_id"].nunique().to_dict(),
        "groups": len(sizes),
        "largest_group": int(sizes.max()) if len(sizes) else 0,
        "quarantined": quarantine["reason"].value_counts().to_dict(),
        "hidden_labels": len(hidden),
        "labelled_with_copies_in_pool": int((manifest["slice_id"].isin(unlabelled) & labelled).sum()),
        "bytes_in_shards": int(manifest["length"].sum()),
        "data_digest": data_digest(entries),
        "shards": shards,
    }
    write_json(catalog / "catalog.json", facts | counted)
    return facts | counted
