import io
import logging
import os
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from scanloop.archive.decode import decode, encode_png
from scanloop.archive.readers import RawImage, read
from scanloop.archive.readers.labels import draw_stratified
from scanloop.archive.readers.phantom import Heads, draw_slices
from scanloop.config import FolderSource, IngestConfig, NpzSource, SyntheticSource
from scanloop.errors import ArchiveError, ConfigError

PNG = encode_png(np.zeros((9, 9), np.uint8))
TREE = {
    "README.txt": b"about",
    "set/labelled/cancer/p1_a.png": PNG + b"1",
    "set/labelled/cancer/deeper/p2_b.png": PNG + b"2",
    "set/labelled/normal/p1_c.jpg": b"no image",
    "set/labelled/loose.png": PNG + b"3",
    "set/unlabelled/d.png": b"",
    "set/unlabelled/labelled.txt": b"text",
}


def folder(root: Path, tree: dict[str, bytes] = TREE) -> Path:
    for name, payload in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
    return root


def tar(path: Path, tree: dict[str, bytes] = TREE, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, payload in reversed(tree.items()):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(payload)
            file.addfile(member, io.BytesIO(payload))
    return path


def from_folder(path: Path, **source: str) -> list[RawImage]:
    config = IngestConfig(source=FolderSource(path=str(path), deidentify=False, **source))
    return [raw.loaded() for raw in read(config)]


def test_a_directory_and_a_tar_of_it_hold_the_same_images(tmp_path: Path) -> None:
    one = from_folder(folder(tmp_path / "archive"), patient_pattern=r"(p\d)_")
    two = from_folder(tar(tmp_path / "archive.tar"), patient_pattern=r"(p\d)_")
    assert [(raw.uri, raw.label, raw.patient_id) for raw in one] == [
        ("archive/set/labelled/cancer/deeper/p2_b.png", "cancer", "p2"),
        ("archive/set/labelled/cancer/p1_a.png", "cancer", "p1"),
        ("archive/set/labelled/loose.png", None, None),
        ("archive/set/labelled/normal/p1_c.jpg", "normal", "p1"),
        ("archive/set/unlabelled/d.png", None, None),
        ("archive/set/unlabelled/labelled.txt", None, None),
    ]
    assert [raw.uri.replace("archive.tar/", "archive/") for raw in two] == [raw.uri for raw in one]
    assert [(raw.payload, raw.label, raw.patient_id) for raw in two] == [
        (raw.payload, raw.label, raw.patient_id) for raw in one
    ]
    assert all(raw.payload == TREE[raw.uri.removeprefix("archive/")] for raw in one)


def test_files_outside_of_the_image_folders_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scanloop"):
        from_folder(folder(tmp_path / "archive"))
    assert "archive: 1 files outside of the image folders are left aside" in caplog.text


def test_the_root_itself_may_hold_the_class_folders(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", {"x/1.png": PNG, "y/2.png": PNG, "pool/3.png": PNG})
    found = from_folder(root, labelled_dir=".", unlabelled_dir="pool")
    assert [(raw.uri, raw.label) for raw in found] == [("a/pool/3.png", None), ("a/x/1.png", "x"), ("a/y/2.png", "y")]


def test_a_source_that_holds_nothing_usable_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match=r"no such directory or tar file; set ingest\.source\.path"):
        from_folder(tmp_path / "missing")
    with pytest.raises(ArchiveError, match="holds no file"):
        from_folder(tmp_path / "empty")
    with pytest.raises(ArchiveError, match=r"set ingest\.source\.labelled_dir \(folders found: .*unlabelled"):
        from_folder(folder(tmp_path / "other"), labelled_dir="avec_labels")
    with pytest.raises(ArchiveError, match="holds no class folders"):
        from_folder(folder(tmp_path / "flat", {"labelled/a.png": PNG}))
    with pytest.raises(ArchiveError, match="uncompressed tar"):
        from_folder(tar(tmp_path / "packed.tar.gz", mode="w:gz"))
    whole = tar(tmp_path / "whole.tar", {"labelled/a/1.png": PNG, "labelled/a/2.png": bytes(50_000)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:-60_000])
    with pytest.raises(ArchiveError, match="not a whole"):
        from_folder(tmp_path / "cut.tar")


def test_what_cannot_be_read_is_yielded_with_its_fault(tmp_path: Path) -> None:
    root = folder(tmp_path / "archive")
    pool = root / "set" / "unlabelled"
    (pool / "gone.png").symlink_to(pool / "nothing.png")
    (pool / "linked.png").symlink_to(root / "set/labelled/cancer/p1_a.png")
    (pool / "again").symlink_to(root / "set")
    os.mkfifo(pool / "pipe.png")
    found = {raw.uri.rpartition("/")[2]: raw for raw in from_folder(root)}
    assert {name: raw.fault.reason for name, raw in found.items() if raw.fault} == {
        "gone.png": "unreadable",
        "pipe.png": "unreadable",
    }
    assert found["linked.png"].payload == TREE["set/labelled/cancer/p1_a.png"]


def test_links_in_a_tar_are_followed_and_a_name_that_stands_twice_counts_once(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"labelled/x/1.png": b"old", "pool/2.png": PNG})
    with tarfile.open(path, "a") as file:
        for name, kind, target in (
            ("labelled/y/3.png", tarfile.LNKTYPE, "./pool/2.png"),
            ("labelled/y/4.png", tarfile.SYMTYPE, "../x/1.png"),
            ("labelled/y/5.png", tarfile.SYMTYPE, "nothing.png"),
            ("labelled/y/6.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            file.addfile(member)
        member = tarfile.TarInfo("labelled/x/1.png")
        member.size = 3
        file.addfile(member, io.BytesIO(b"new"))
    found = [(raw.uri, raw.payload, raw.fault is None) for raw in from_folder(path)]
    assert found == [
        ("a.tar/labelled/x/1.png", b"new", True),
        ("a.tar/labelled/y/3.png", PNG, True),
        ("a.tar/labelled/y/4.png", b"new", True),
        ("a.tar/labelled/y/5.png", b"", False),
        ("a.tar/labelled/y/6.png", b"", False),
    ]


def test_names_that_are_no_unicode_become_text(tmp_path: Path) -> None:
    root = folder(tmp_path / "archive")
    (root / "set/unlabelled" / os.fsdecode(b"\xe9.png")).write_bytes(PNG)
    uris = [raw.uri for raw in from_folder(root)]
    assert "archive/set/unlabelled/\\xe9.png" in uris
    assert all(uri.encode() for uri in uris)


@pytest.mark.parametrize("pattern", ["(unclosed", "nogroup"])
def test_a_patient_pattern_without_a_group_is_a_fault_of_the_configuration(pattern: str) -> None:
    with pytest.raises(ValidationError, match="patient_pattern"):
        FolderSource(path="x", deidentify=False, patient_pattern=pattern)


@pytest.mark.parametrize(
    ("name", "counts", "labelled"),
    [
        ("breastmnist_resaved", (156, 546, 78), {"0": 27, "1": 73}),
        ("pneumoniamnist_rebuilt", (624, 4708, 524), {"0": 26, "1": 74}),
    ],
)
def test_both_medmnist_files_are_read(data_dir: Path, name: str, counts: tuple, labelled: dict[str, int]) -> None:
    path = data_dir / "medmnist" / f"{name}.npz"
    found = list(read(IngestConfig(source=NpzSource(path=str(path), labelled=100))))
    splits = Counter(raw.split for raw in found)
    assert (splits["test"], splits["train"], splits["validation"]) == counts
    assert [raw.uri for raw in found] == sorted(raw.uri for raw in found)
    train = [raw for raw in found if raw.split == "train"]
    assert Counter(raw.label for raw in train if raw.label) == labelled
    assert all((raw.label is None) == (raw.hidden_label is not None) for raw in train)
    assert all(raw.label for raw in found if raw.split != "train")
    with np.load(path) as arrays:
        row = 77
        raw = next(raw for raw in found if raw.uri == f"{name}.npz/val/{row:06d}")
        assert np.array_equal(raw.payload, arrays["val_images"][row])
        assert raw.label == str(int(arrays["val_labels"].reshape(-1)[row]))


def test_other_labels_are_known_with_another_seed() -> None:
    classes = np.repeat([0, 1, 2], [500, 300, 3])
    one, two = draw_stratified(classes, 80, 0), draw_stratified(classes, 80, 1)
    assert np.bincount(classes[one]).tolist() == np.bincount(classes[two]).tolist() == [49, 30, 1]
    assert not np.array_equal(one, two)
    assert draw_stratified(classes, 803, 0).all()
    assert np.bincount(classes[draw_stratified(classes, 2, 0)]).tolist() == [1, 1, 1]


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    plain = {f"{part}_images": np.zeros((4, 9, 9), np.uint8) for part in ("train", "val", "test")}
    return plain | {f"{part}_labels": np.array([0, 1, 0, 1]) for part in ("train", "val", "test")} | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_images": np.zeros((4, 9, 9), np.float32)}, "must be uint8"),
        ({"val_labels": np.zeros((4, 14), int)}, "one integer class"),
        ({"val_labels": np.zeros(3, int)}, "one integer class"),
        ({"train_labels": np.array([0, {}], dtype=object)}, "not an .npz of plain arrays"),
    ],
)
def test_an_npz_of_another_kind_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays(**change))
    with pytest.raises(ArchiveError, match=message):
        list(read(IngestConfig(source=NpzSource(path=str(tmp_path / "set.npz")))))


def test_a_missing_key_a_missing_file_and_a_missing_class_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(ArchiveError, match="no such file"):
        list(read(IngestConfig(source=NpzSource(path=str(path)))))
    path.write_bytes(b"PK no zip")
    with pytest.raises(ArchiveError, match=r"not an \.npz"):
        list(read(IngestConfig(source=NpzSource(path=str(path)))))
    np.savez(path, **{name: array for name, array in arrays().items() if name != "val_labels"})
    with pytest.raises(ArchiveError, match="val_labels"):
        list(read(IngestConfig(source=NpzSource(path=str(path)))))
    np.savez(path, **arrays())
    with pytest.raises(ConfigError, match="names 1: only"):
        list(read(IngestConfig(source=NpzSource(path=str(path), class_names=("only",)))))


def synthetic(seed: int = 0, **changes: object) -> list[RawImage]:
    source = SyntheticSource(
        **({"slices": 301, "size_px": 32, "labelled": 41, "copy_share": 0.1, "seed": seed} | changes)
    )
    return list(read(IngestConfig(source=source, validation_share=0.2, test_share=0.3)))


def test_one_seed_draws_one_cohort() -> None:
    assert synthetic() == synthetic()
    assert [raw.payload for raw in synthetic(1)] != [raw.payload for raw in synthetic()]


def test_a_cohort_has_the_numbers_that_were_asked_for() -> None:
    found = synthetic(slices_per_patient=3, lesion_share=0.4)
    originals = [raw for raw in found if not raw.uri.endswith("_copy.png")]
    assert [raw.uri for raw in found] == sorted(raw.uri for raw in found)
    assert (len(originals), len(found) - len(originals)) == (301, 30)
    by_patient: dict[str, list[RawImage]] = {}
    for raw in originals:
        by_patient.setdefault(raw.patient_id or "", []).append(raw)
    assert Counter(len(own) for own in by_patient.values()) == {3: 100, 1: 1}
    assert all(len({(raw.label or raw.hidden_label, raw.split) for raw in own}) == 1 for own in by_patient.values())
    truth = Counter((own[0].label or own[0].hidden_label, own[0].split) for own in by_patient.values())
    assert truth == {
        ("lesion", "test"): 12, ("lesion", "validation"): 8, ("lesion", "train"): 20,
        ("normal", "test"): 18, ("normal", "validation"): 12, ("normal", "train"): 31,
    }  # fmt: skip
    assert sum(raw.label is not None for raw in originals if raw.split == "train") == 41
    assert all(raw.label for raw in originals if raw.split != "train")
    assert all((raw.label is None) == (raw.hidden_label is not None) for raw in found)


def test_copies_are_the_same_bytes_without_a_label_and_nothing_else_is_a_copy() -> None:
    found = {raw.uri: raw for raw in synthetic()}
    copies = [raw for uri, raw in found.items() if uri.endswith("_copy.png")]
    for copy in copies:
        assert copy.payload == found[copy.uri.replace("_copy", "")].payload
        assert copy.label is None
    assert len({raw.payload for raw in found.values()}) == len(found) - len(copies)


def test_slices_of_one_patient_resemble_one_another_more_than_those_of_two() -> None:
    found = synthetic(copy_share=0.0, size_px=64)
    images = np.stack([decode(raw.payload, min_side_px=8, max_pixels=10**5).ravel() for raw in found[:300]])
    correlation = np.corrcoef(images)
    same = correlation[np.arange(0, 300, 2), np.arange(1, 300, 2)]
    other = correlation[np.arange(1, 299, 2), np.arange(2, 300, 2)]
    assert np.median(same) > np.median(other) + 0.05


def test_a_lesion_changes_one_compact_part_of_the_slice_in_proportion_to_its_contrast() -> None:
    def drawn(lesion: bool, contrast: float) -> np.ndarray:
        heads = Heads(np.arange(40), np.full(40, lesion), contrast)
        return draw_slices(heads, 64, np.random.default_rng(0)).astype(float)

    weak, strong = (np.abs(drawn(True, contrast) - drawn(False, contrast)) for contrast in (0.2, 0.4))
    changed = (strong > 10).mean(axis=(1, 2))
    assert changed.min() > 0.002
    assert changed.max() < 0.2
    assert 1.7 < strong.sum() / weak.sum() < 2.1


def test_a_large_cohort_starts_at_once() -> None:
    source = SyntheticSource(slices=2_000_000, size_px=64)
    assert len(list(islice(read(IngestConfig(source=source)), 10))) == 10
