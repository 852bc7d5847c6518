import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from stored import stored_slices

from scanloop.archive.decode import decode, encode_png
from scanloop.archive.journal import Journal
from scanloop.archive.readers import files
from scanloop.archive.shards import iterate_shards
from scanloop.archive.splits import assert_no_leakage
from scanloop.artifacts import is_exempt, read_json, read_table
from scanloop.config import FolderSource, IngestConfig, NpzSource, SyntheticSource
from scanloop.errors import ArchiveError, ConfigError
from scanloop.steps.ingest import IngestSummary, ingest

GENERATOR = np.random.default_rng(0)


def png(seed: int, side: int = 24) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8))


def jpeg(seed: int) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def put(root: Path, tree: dict[str, bytes]) -> Path:
    for name, payload in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
    return root


def small(root: Path, **extra: bytes) -> Path:
    tree = {f"labelled/cancer/{row}.png": png(row) for row in range(6)}
    tree |= {f"labelled/normal/{row}.png": png(row) for row in range(6, 12)}
    return put(root, tree | {f"unlabelled/{row}.png": png(row) for row in range(12, 20)} | extra)


def folder_config(root: Path, **changes: object) -> IngestConfig:
    return IngestConfig(source=FolderSource(path=str(root), deidentify=False), **changes)


def file_bytes(artifact: Path) -> dict[str, bytes]:
    files = (path for path in sorted(artifact.rglob("*")) if path.is_file() and not is_exempt(path))
    return {str(path.relative_to(artifact)): path.read_bytes() for path in files}


def test_the_brain_archive_comes_in_whole(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "brain_mri_oc.tar"
    source = FolderSource(path=str(path), deidentify=False, labelled_dir="avec_labels", unlabelled_dir="sans_label")
    catalog = tmp_path / "catalog"
    summary = ingest(IngestConfig(source=source, positive_class="cancer", test_share=0.2), output=catalog)
    assert (summary.uris, summary.slices, summary.exact_copies, summary.labelled) == (1506, 1410, 96, 99)
    facts = read_json(catalog / "catalog.json")
    assert (facts["labelled_with_copies_in_pool"], facts["quarantined"], facts["name"]) == (31, {}, "brain_mri_oc")
    assert (facts["largest_group"], facts["near_duplicate_groups"]) == (4, 68)

    manifest, sources = read_table(catalog, "manifest"), read_table(catalog, "sources.parquet")
    with tarfile.open(path) as tar:
        members = {
            f"brain_mri_oc.tar/{member.name.removeprefix('./')}": member for member in tar if "." in member.name[2:]
        }
        images = {uri for uri in members if uri.endswith(".jpg")}
        assert set(sources["uri"]) == images
        of_uri = sources.set_index("uri")["slice_id"]
        for uri in sorted(images)[::250]:
            file = tar.extractfile(members[uri])
            assert file is not None
            payload = file.read()
            rows = manifest[manifest["slice_id"] == of_uri[uri]]
            row = rows.iloc[0]
            assert row["sha256"] == hashlib.sha256(payload).hexdigest()
            assert of_uri[uri] == hashlib.sha256(f"{row['sha256']}:0".encode()).hexdigest()
            stored = stored_slices(catalog, rows)[of_uri[uri]]
            whole = decode(payload, min_side_px=8, max_pixels=10**6)
            assert stored.shape[:2] == (256, 256)
            blocks = whole.reshape(256, 2, 256, 2, *whole.shape[2:]).mean(axis=(1, 3))
            assert np.abs(stored - blocks).max() <= 6  # the codec leaves out frequencies instead of averaging pixels
            assert np.abs(stored - blocks).mean() <= 0.5

    held_out = manifest[manifest["split"] == "test"]
    assert 18 <= held_out["label"].notna().sum() <= 26
    assert_no_leakage(manifest)
    pool_uris = sources[sources["uri"].str.contains("/sans_label/")]
    pool = manifest[manifest["label"].isna() & (manifest["split"] == "train")]
    assert not set(held_out["slice_id"]) & set(pool["slice_id"])
    assert not set(held_out["group_id"]) & set(pool["group_id"])
    assert len(set(pool_uris["slice_id"])) == summary.pool + 31 + held_out["label"].isna().sum()


def test_four_bad_files_are_quarantined_with_their_reasons_and_the_run_goes_on(tmp_path: Path) -> None:
    bad = {
        "labelled/cancer/cut.jpg": jpeg(1)[:900],
        "labelled/normal/nothing.jpg": b"",
        "unlabelled/text.jpg": b"not an image at all",
        "unlabelled/dot.png": png(50, side=1),
    }
    root = put(small(tmp_path / "archive"), bad)
    summary = ingest(folder_config(root), output=tmp_path / "catalog")
    quarantine = read_table(tmp_path / "catalog", "quarantine.parquet")
    assert dict(zip(quarantine["uri"], quarantine["reason"], strict=True)) == {
        "archive/labelled/cancer/cut.jpg": "truncated",
        "archive/labelled/normal/nothing.jpg": "empty_file",
        "archive/unlabelled/text.jpg": "not_an_image",
        "archive/unlabelled/dot.png": "too_small",
    }
    assert (summary.uris, summary.slices, summary.quarantined, summary.exact_copies) == (24, 20, 4, 0)
    counted = read_json(tmp_path / "catalog" / "catalog.json")["quarantined"]
    assert counted == {"truncated": 1, "empty_file": 1, "not_an_image": 1, "too_small": 1}


def test_copies_become_one_slice_that_keeps_its_label(tmp_path: Path) -> None:
    root = put(small(tmp_path / "a"), {"unlabelled/copy.png": png(0), "unlabelled/twice.png": png(12)})
    summary = ingest(folder_config(root), output=tmp_path / "catalog")
    assert (summary.uris, summary.slices, summary.exact_copies, summary.labelled, summary.pool) == (22, 20, 2, 12, 8)
    sources = read_table(tmp_path / "catalog", "sources.parquet").groupby("slice_id")["uri"].apply(list)
    manifest = read_table(tmp_path / "catalog", "manifest").set_index("slice_id")
    (labelled,) = (name for name, uris in sources.items() if "a/unlabelled/copy.png" in uris)
    assert sources[labelled] == ["a/labelled/cancer/0.png", "a/unlabelled/copy.png"]
    assert manifest.loc[labelled, ["label", "label_source"]].tolist() == ["cancer", "source"]


def test_copies_under_two_labels_are_quarantined_with_every_uri_and_leave_the_shards(tmp_path: Path) -> None:
    conflicts = {"labelled/normal/same.png": png(0), "unlabelled/same.png": png(0)}
    root = put(small(tmp_path / "a"), conflicts)
    summary = ingest(folder_config(root, shard_slices=7), output=tmp_path / "catalog")
    quarantine = read_table(tmp_path / "catalog", "quarantine.parquet")
    assert set(quarantine["reason"]) == {"conflicting_labels"}
    assert quarantine["uri"].tolist() == [
        "a/labelled/cancer/0.png",
        "a/labelled/normal/same.png",
        "a/unlabelled/same.png",
    ]
    assert "cancer (a/labelled/cancer/0.png) and normal (a/labelled/normal/same.png)" in quarantine["detail"][0]
    assert (summary.uris, summary.slices, summary.quarantined) == (22, 19, 3)
    manifest = read_table(tmp_path / "catalog", "manifest")
    stored = {
        name: image
        for _, ids, images in iterate_shards(tmp_path / "catalog", manifest)
        for name, image in zip(ids, images, strict=True)
    }
    originals = {hashlib.sha256(image.tobytes()).digest() for image in stored.values()}
    expected = {
        hashlib.sha256(decode(png(row), min_side_px=1, max_pixels=10**6).tobytes()).digest() for row in range(1, 20)
    }
    assert originals == expected
    members = []
    for shard in sorted((tmp_path / "catalog" / "shards").iterdir()):
        with tarfile.open(shard) as tar:
            members += [name.removesuffix(".png") for name in tar.getnames()]
    assert members == manifest["slice_id"].tolist()


def test_all_of_a_kind_is_refused_with_a_word_on_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match="holds no file"):
        ingest(folder_config(tmp_path / "empty"), output=tmp_path / "one")
    bad = put(tmp_path / "bad", {"labelled/a/1.png": b"text", "unlabelled/2.png": b""})
    with pytest.raises(ArchiveError, match=r"none of 2 images can come in \(empty_file 1, not_an_image 1\)"):
        ingest(folder_config(bad), output=tmp_path / "two")
    unlabelled = put(tmp_path / "bare", {"labelled/a/1.png": b"text", "unlabelled/2.png": png(2)})
    with pytest.raises(ArchiveError, match="none of 1 slices has a label"):
        ingest(folder_config(unlabelled), output=tmp_path / "three")
    with pytest.raises(ConfigError, match="no class 'tumour'; there are cancer, normal"):
        ingest(folder_config(small(tmp_path / "good"), positive_class="tumour"), output=tmp_path / "four")


def test_two_ingests_write_the_same_bytes_and_a_third_is_found(tmp_path: Path) -> None:
    root = put(small(tmp_path / "archive"), {"labelled/normal/same.png": png(0), "unlabelled/x.png": b""})
    config = folder_config(root, validation_share=0.2, test_share=0.2, shard_slices=4)
    first = ingest(config, output=tmp_path / "one")
    assert ingest(config, output=tmp_path / "two") == first
    one, two = file_bytes(tmp_path / "one"), file_bytes(tmp_path / "two")
    assert one == two
    assert {"catalog.json", "manifest/part-000000.parquet", "shards/shard-000004.tar", "artifact.json"} <= set(one)
    assert ingest(config, output=tmp_path / "one") == first
    assert file_bytes(tmp_path / "one") == one


def test_an_ingest_over_the_leftovers_of_a_killed_one_writes_the_same_bytes(tmp_path: Path) -> None:
    config = folder_config(small(tmp_path / "archive"), shard_slices=4)
    ingest(config, output=tmp_path / "one")
    key = json.loads((tmp_path / "one" / "artifact.json").read_text())["key"]
    leftovers = {".scratch/key": key.encode(), "shards/shard-000099.tar": b"x", ".scratch/thumbnails.u8": bytes(5000)}
    put(tmp_path / ".two.partial", leftovers)
    ingest(config, output=tmp_path / "two")
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "two")


def test_a_synthetic_cohort_comes_in_with_hidden_labels_for_its_pool(tmp_path: Path) -> None:
    source = SyntheticSource(slices=240, labelled=20, copy_share=0.05, size_px=32)
    config = IngestConfig(source=source, validation_share=0.2, test_share=0.25, positive_class="lesion")
    summary = ingest(config, output=tmp_path / "one")
    assert (summary.uris, summary.slices, summary.exact_copies, summary.groups) == (252, 240, 12, 120)
    assert (summary.test, summary.validation, summary.pool) == (60, 48, 112)
    assert summary.labelled == 20 + 60 + 48
    hidden = read_table(tmp_path / "one", "hidden_labels.parquet")
    manifest = read_table(tmp_path / "one", "manifest")
    assert set(hidden["slice_id"]) == set(manifest.loc[manifest["label"].isna(), "slice_id"])
    assert Counter(hidden["label"]) == {"lesion": 56, "normal": 56}
    other = IngestConfig(source=source.model_copy(update={"seed": 1}), positive_class="lesion")
    assert ingest(other, output=tmp_path / "two").data_digest != summary.data_digest
    ingest(config, output=tmp_path / "three")
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "three")


@pytest.mark.parametrize(
    ("name", "slices", "test"), [("breastmnist_resaved", 779, 154), ("pneumoniamnist_rebuilt", 5827, 621)]
)
def test_both_medmnist_files_come_in_with_their_own_splits(
    data_dir: Path, tmp_path: Path, name: str, slices: int, test: int
) -> None:
    path = data_dir / "medmnist" / f"{name}.npz"
    source = NpzSource(path=str(path), labelled=50, class_names=("malignant", "benign"))
    ingest(IngestConfig(source=source), output=tmp_path / "catalog")
    facts = read_json(tmp_path / "catalog" / "catalog.json")
    with np.load(path) as arrays:
        distinct = {image.tobytes() for part in ("train", "val", "test") for image in arrays[f"{part}_images"]}
        held_out = {image.tobytes() for image in arrays["test_images"]}
    assert facts["slices"] == len(distinct) == slices
    assert facts["split_groups"]["test"] == test
    assert facts["splits"]["test"] >= len(held_out)
    assert facts["classes"] == ["benign", "malignant"]
    manifest = read_table(tmp_path / "catalog", "manifest")
    assert manifest.groupby("group_id")["split"].nunique().max() == 1
    training = {
        image.tobytes()
        for _, _, images in iterate_shards(tmp_path / "catalog", manifest[manifest["split"] == "train"])
        for image in images
    }
    assert not training & held_out


def test_patients_and_look_alikes_form_one_group(tmp_path: Path) -> None:
    smooth = np.kron(np.random.default_rng(5).integers(0, 220, (12, 12), dtype=np.uint8), np.ones((4, 4), np.uint8))
    look_alikes = {
        "labelled/cancer/p1-a.png": encode_png(smooth),
        "unlabelled/p2-a.png": encode_png(smooth + 3),
        "unlabelled/p2-b.png": png(60),
    }
    root = put(small(tmp_path / "archive"), look_alikes)
    source = FolderSource(path=str(root), deidentify=False, patient_pattern=r"(p\d)-")
    summary = ingest(IngestConfig(source=source), output=tmp_path / "catalog")
    assert (summary.slices, summary.groups, summary.near_duplicate_groups) == (23, 21, 1)
    manifest = read_table(tmp_path / "catalog", "manifest")
    assert manifest["group_id"].value_counts().iloc[0] == 3
    assert Counter(manifest["patient_id"].dropna()) == {"p1": 1, "p2": 2}


def test_the_summary_is_rebuilt_from_its_json(tmp_path: Path) -> None:
    summary = ingest(folder_config(small(tmp_path / "archive")), output=tmp_path / "catalog")
    stored = json.loads((tmp_path / "catalog" / "artifact.json").read_text())["summary"]
    assert IngestSummary(**stored) == summary


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
