"""An ingest that continues after a kill, and one that extends an earlier catalog."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import file_bytes, folder_config, png, put, small
from stored import stored_slices

from scanloop.archive.decode import encode_png
from scanloop.archive.journal import Journal
from scanloop.archive.readers import files
from scanloop.artifacts import read_json, read_table
from scanloop.errors import ConfigError
from scanloop.steps.ingest import ingest


def test_an_ingest_killed_at_any_shard_continues_there_and_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(small(tmp_path / "archive"), {"labelled/normal/same.png": png(0), "unlabelled/x.png": b""})
    config = folder_config(root, shard_slices=4, test_share=0.2)
    ingest(config, output=tmp_path / "whole")
    for shards in range(1, 5):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "commit", dying_after(shards))
            with pytest.raises(KeyboardInterrupt):
                ingest(config, output=tmp_path / "killed")
        read: list[Path] = []
        with monkeypatch.context() as patch:
            patch.setattr(files, "read_bytes", recording(files.read_bytes, read))
            ingest(config, output=tmp_path / "killed")
        assert len(read) < 23
        assert file_bytes(tmp_path / "killed") == file_bytes(tmp_path / "whole")
        shutil.rmtree(tmp_path / "killed")


def test_an_archive_that_grew_is_read_only_where_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(small(tmp_path / "archive"), {"unlabelled/broken.png": b"no image"})
    config = folder_config(root, shard_slices=4, test_share=0.2)
    ingest(config, output=tmp_path / "old")
    put(root, {"unlabelled/new.png": png(90), "unlabelled/copy.png": png(0), "labelled/normal/new.png": png(91)})
    (root / "unlabelled" / "13.png").unlink()
    extended = config.model_copy(update={"base": str(tmp_path / "old")})
    read: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", recording(files.read_bytes, read))
        ingest(extended, output=tmp_path / "new")
    names = {path.relative_to(root).as_posix() for path in read}
    news = {"unlabelled/new.png", "unlabelled/copy.png", "labelled/normal/new.png", "unlabelled/broken.png"}
    assert names == news | {"labelled/cancer/0.png"}, "and of what a new image is a copy of"
    fresh = ingest(config, output=tmp_path / "fresh")
    grown, whole = (stored(tmp_path / name) for name in ("new", "fresh"))
    assert grown == whole
    assert read_json(tmp_path / "new" / "catalog.json")["data_digest"] == fresh.data_digest
    facts, expected = (read_json(tmp_path / name / "catalog.json") for name in ("new", "fresh"))
    for name in ("slices", "uris", "exact_copies", "labelled", "quarantined", "labelled_with_copies_in_pool"):
        assert facts[name] == expected[name], name
    old = read_table(tmp_path / "old", "manifest").set_index("slice_id")
    after = read_table(tmp_path / "new", "manifest").set_index("slice_id")
    both = old.index.intersection(after.index)
    assert after.loc[both, "split"].tolist() == old.loc[both, "split"].tolist()
    before = read_json(tmp_path / "old" / "catalog.json")["shards"]
    assert sum(facts["shards"].get(name) == digest for name, digest in before.items()) == len(before) - 1
    ingest(extended, output=tmp_path / "again")
    assert file_bytes(tmp_path / "again") == file_bytes(tmp_path / "new")


def test_a_base_of_other_sizes_is_refused(tmp_path: Path) -> None:
    config = folder_config(small(tmp_path / "archive"))
    ingest(config, output=tmp_path / "old")
    other = config.model_copy(update={"base": str(tmp_path / "old"), "short_side_px": 16})
    with pytest.raises(ConfigError, match=r"ingest\.short_side_px: 16, but the slices of .* were made with"):
        ingest(other, output=tmp_path / "new")


def test_a_look_alike_of_a_known_slice_joins_its_group_and_its_split(tmp_path: Path) -> None:
    smooth = np.kron(np.random.default_rng(5).integers(0, 220, (12, 12), dtype=np.uint8), np.ones((4, 4), np.uint8))
    root = put(small(tmp_path / "archive"), {"labelled/cancer/a.png": encode_png(smooth)})
    config = folder_config(root, test_share=0.9)
    ingest(config, output=tmp_path / "old")
    put(root, {"unlabelled/b.png": encode_png(smooth + 3)})
    ingest(config.model_copy(update={"base": str(tmp_path / "old")}), output=tmp_path / "new")
    sources = read_table(tmp_path / "new", "sources.parquet").set_index("uri")["slice_id"]
    rows = read_table(tmp_path / "new", "manifest").set_index("slice_id")
    one, two = (rows.loc[sources[f"archive/{name}"]] for name in ("labelled/cancer/a.png", "unlabelled/b.png"))
    assert (one["group_id"], one["split"]) == (two["group_id"], two["split"])


def dying_after(shards: int) -> Callable[[Journal], None]:
    """A commit that, after some shards, dies without committing."""
    whole, done = Journal.commit, [0]

    def commit(journal: Journal) -> None:
        done[0] += 1
        if done[0] > shards:
            raise KeyboardInterrupt
        whole(journal)

    return commit


def recording(read: Callable[[files.SourceFile], bytes], into: list[Path]) -> Callable[[files.SourceFile], bytes]:
    """A reader of files that notes what it reads."""

    def reading(file: files.SourceFile) -> bytes:
        into.append(file.path)
        return read(file)

    return reading


def stored(catalog: Path) -> dict[str, tuple[str | None, bytes]]:
    """Label and pixels of every slice of a catalog, by id."""
    manifest = read_table(catalog, "manifest")
    labels = manifest.set_index("slice_id")["label"]
    return {name: (labels[name], image.tobytes()) for name, image in stored_slices(catalog, manifest).items()}
