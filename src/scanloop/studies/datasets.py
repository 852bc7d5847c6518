"""The sets that studies run on, in their published parts: read by the readers that `ingest` uses."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanloop.archive.decode import decode
from scanloop.archive.readers import RawImage
from scanloop.archive.readers.folder import read_folder
from scanloop.archive.readers.medmnist import fetch, published
from scanloop.archive.readers.npz import read_npz
from scanloop.archive.readers.record import Later
from scanloop.errors import ArchiveError
from scanloop.provenance import file_digest
from scanloop.sources import FolderSource, MedmnistSource, NpzSource
from scanloop.studies.request import StudyRequest
from scanloop.types import Groups, Image, Labels

MODALITIES = {"breastmnist": "ultrasound", "pneumoniamnist": "xray", "kermany": "xray"}
ALL = 1_000_000_000


@dataclass(frozen=True)
class Part:
    """Images uint8 (h, w) or (h, w, 3), their classes (n,), and the group of each (n,)."""

    images: list[Image]
    labels: Labels
    groups: Groups


@dataclass(frozen=True)
class StudySet:
    """A set with the parts that its publishers made; the validation part is left alone.

    Attributes:
        train: To learn from.
        test: To judge on; no patient of it stands in `train`.
        classes: Number of classes.
        digest: SHA-256 of the file.
    """

    train: Part
    test: Part
    classes: int
    digest: str


def load_set(name: str, request: StudyRequest) -> StudySet:
    """A set from its file below `request.data`, or downloaded.

    Raises:
        ArchiveError: No file below the folder, or more than one, is the set's; or it cannot be read.
        StorageError: It cannot be downloaded.
    """
    path = locate(name, request)
    if name == "kermany":
        folder = FolderSource(
            path=str(path), deidentify=False, labelled_dir=("train", "test"), patient_pattern=r"(person\d+|IM-\d+)"
        )
        found = [(raw, "test" if "/test/" in raw.uri else "train") for raw in read_folder(folder)]
    else:
        found = [(raw, str(raw.split)) for raw in read_npz(NpzSource(path=str(path), labelled=ALL))]
    test = _part(raw for raw, split in found if split == "test")
    patients = set(test.groups)
    train = _part(raw for raw, split in found if split == "train" and _group(raw) not in patients)
    names = sorted({str(label) for part in (train, test) for label in part.labels})
    numbered = [
        Part(part.images, np.array([names.index(str(label)) for label in part.labels], np.int64), part.groups)
        for part in (train, test)
    ]
    return StudySet(numbered[0], numbered[1], len(names), file_digest(path))


def locate(name: str, request: StudyRequest) -> Path:
    """File of a set; MedMNIST's may carry a suffix, as in breastmnist_resaved.npz."""
    if request.data is None:
        if name == "kermany":
            raise ArchiveError("kermany is not downloaded; say with --data below which folder its .tar lies")
        source = MedmnistSource(name=name, size_px=request.size_px)
        return fetch(source, published()[name]["md5"][request.size_px])
    sizes = "" if request.size_px == 28 else f"_{request.size_px}"
    pattern = "kermany*.tar" if name == "kermany" else f"{name}{sizes}*.npz"
    others = ("_64", "_128", "_224") if not sizes else ()
    found = [
        path
        for path in sorted(request.data.rglob(pattern))
        if name == "kermany" or not any(other in path.stem for other in others)
    ]
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise ArchiveError(f"{request.data}: one file {pattern} is needed below it, found {listed}; correct --data")
    return found[0]


def _part(raws: Iterable[RawImage]) -> Part:
    kept = list(raws)
    images = [_pixels(raw) for raw in kept]
    return Part(images, np.array([raw.label for raw in kept]), np.array([_group(raw) for raw in kept]))


def _group(raw: RawImage) -> str:
    return raw.patient_id or raw.uri


def _pixels(raw: RawImage) -> Image:
    payload = raw.payload.load() if isinstance(raw.payload, Later) else raw.payload
    if isinstance(payload, np.ndarray):
        return payload
    assert isinstance(payload, bytes)  # frames are DICOM's
    return decode(payload, min_side_px=8, max_pixels=50_000_000, short_side_px=256)


def draw_labels(labels: Labels, percent: float, seed: int, least: int = 2) -> Labels:
    """Rows whose labels are known: so many percent of each class, and `least` of each at least.

    Args:
        labels: (n,) class indices.
        percent: Share of the rows, in (0, 100].
        seed: Of the draw. A larger share with the same seed holds the smaller one's rows.
        least: Rows of each class, where it has as many.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        drawn.append(rows[: max(least, round(len(rows) * percent / 100))])
    return np.sort(np.concatenate(drawn))
