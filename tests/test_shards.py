import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from stored import stored_slices

from scanloop.archive.decode import encode_png
from scanloop.archive.shards import FOLDER, Location, ShardWriter, iterate_shards, keep_only, read_png
from scanloop.errors import ArtifactError
from scanloop.types import Image


def slices(count: int) -> dict[str, Image]:
    generator = np.random.default_rng(0)
    shapes = [(20, 30), (33, 21), (24, 24, 3)]
    return {
        hashlib.sha256(str(row).encode()).hexdigest(): generator.integers(0, 256, shapes[row % 3], dtype=np.uint8)
        for row in range(count)
    }


def written(catalog: Path, images: dict[str, Image], shard_slices: int = 4) -> tuple[pd.DataFrame, ShardWriter]:
    writer = ShardWriter(catalog, shard_slices)
    rows = [{"slice_id": name, **writer.add(name, encode_png(image))._asdict()} for name, image in images.items()]
    writer.close()
    return pd.DataFrame(rows), writer


def test_every_slice_is_read_back_by_position_and_shard_by_shard(tmp_path: Path) -> None:
    images = slices(10)
    manifest, writer = written(tmp_path, images)
    for row in manifest.itertuples():
        png = read_png(tmp_path, Location(row.shard, row.offset, row.length))
        assert np.array_equal(np.array(PIL.Image.open(io.BytesIO(png))), images[row.slice_id])
    parts = list(iterate_shards(tmp_path, manifest))
    assert [(shard, len(ids)) for shard, ids, _ in parts] == [
        ("shard-000000.tar", 4), ("shard-000001.tar", 4), ("shard-000002.tar", 2),
    ]  # fmt: skip
    assert [name for _, ids, _ in parts for name in ids] == list(images)
    for _, ids, found in parts:
        assert all(np.array_equal(images[name], image) for name, image in zip(ids, found, strict=True))
    assert writer.digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / FOLDER).iterdir())
    }


def test_some_rows_come_in_the_manifests_order(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path, slices(10))
    chosen = manifest.iloc[[9, 2, 8, 0]]
    assert [(shard, ids) for shard, ids, _ in iterate_shards(tmp_path, chosen)] == [
        ("shard-000002.tar", [manifest.slice_id[9], manifest.slice_id[8]]),
        ("shard-000000.tar", [manifest.slice_id[2], manifest.slice_id[0]]),
    ]


def test_tar_reads_the_shards_at_the_places_that_the_writer_names(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path, slices(4))
    with tarfile.open(tmp_path / FOLDER / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [f"{name}.png" for name in manifest.slice_id]
    assert [member.offset_data for member in members] == manifest.offset.tolist()
    assert [member.size for member in members] == manifest.length.tolist()
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    images = slices(6)
    written(tmp_path, images)
    urls = [str(path) for path in sorted((tmp_path / FOLDER).iterdir())]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == list(images)
    for sample in samples:
        assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(sample["png"]))), images[sample["__key__"]])


def test_a_shard_can_be_written_again_without_a_slice(tmp_path: Path) -> None:
    images = slices(6)
    manifest, _ = written(tmp_path, images)
    kept = [manifest.slice_id[row] for row in (0, 2, 3)]
    digest, moved = keep_only(tmp_path, "shard-000000.tar", kept)
    again = pd.DataFrame([{"slice_id": name} | moved[name]._asdict() for name in kept])
    stored = stored_slices(tmp_path, again)
    assert list(stored) == kept
    assert all(np.array_equal(image, images[name]) for name, image in stored.items())
    direct, writer = written(tmp_path / "direct", {name: images[name] for name in kept})
    places = [tuple(row) for row in direct[["shard", "offset", "length"]].itertuples(index=False)]
    assert places == list(moved.values())
    assert writer.digests == {"shard-000000.tar": digest}
    assert keep_only(tmp_path, "shard-000000.tar", kept) == (digest, moved)
    for _ in range(2):
        assert keep_only(tmp_path, "shard-000001.tar", []) == (None, {})
        assert not (tmp_path / FOLDER / "shard-000001.tar").exists()


def test_a_missing_or_damaged_shard_is_named(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path, slices(4))
    path = tmp_path / FOLDER / "shard-000000.tar"
    row = manifest.iloc[3]
    with pytest.raises(ArtifactError, match="does not hold the slice"):
        stored_slices(tmp_path, manifest.iloc[[3]].assign(offset=row.offset + 1))
    path.write_bytes(path.read_bytes()[: row.offset + 10])
    with pytest.raises(ArtifactError, match="ends before byte"):
        read_png(tmp_path, Location(row.shard, row.offset, row.length))
    path.unlink()
    with pytest.raises(ArtifactError, match=r"shard-000000\.tar is missing"):
        list(iterate_shards(tmp_path, manifest))
