"""Arrays in an .npz file with MedMNIST's six keys, in the splits that it brings."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.archive.readers.record import RawImage
from scanloop.errors import ArchiveError, ConfigError
from scanloop.sources import NpzSource

PARTS = {"test": "test", "train": "train", "val": "validation"}
"""Splits by the file's own names, in the order of their uris."""


def read_npz(source: NpzSource) -> Iterator[RawImage]:
    """Images of the file's three parts, sorted by uri, one part in memory at a time.

    Validation and test keep their labels. Of the training labels some are kept, drawn by seed with the classes in
    proportion; the others are hidden and can be bought.

    Raises:
        ArchiveError: The file is missing or does not hold images uint8 (n, h, w) or (n, h, w, 3) and one class each.
        ConfigError: The file holds more classes than the configuration names.
    """
    path = Path(source.path)
    for part, split in PARTS.items():
        images, classes = _load(path, part)
        names = _names(classes, source, path)
        known = np.ones(len(classes), bool)
        if split == "train":
            known = draw_stratified(classes, source.labelled, source.seed)
        digits = max(6, len(str(len(classes))))  # so that the uris sort as the rows do
        for row, (image, name) in enumerate(zip(images, names, strict=True)):
            yield RawImage(
                uri=f"{path.name}/{part}/{row:0{digits}d}",
                payload=image,
                label=name if known[row] else None,
                hidden_label=None if known[row] else name,
                split=split,
            )


def draw_stratified(classes: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.bool_]:
    """Rows to draw so that each class has its share, and at least one row.

    Args:
        classes: int64 (n,).
        count: Rows to draw; all of them when there are not more.
        seed: Of the draw.

    Returns:
        bool (n,), true for a drawn row.
    """
    drawn = np.zeros(len(classes), bool)
    values, sizes = np.unique(classes, return_counts=True)
    if count >= len(classes):
        return ~drawn
    ideal = sizes * count / max(1, len(classes))
    quotas = np.maximum(1, np.floor(ideal)).astype(int)
    while quotas.sum() < count:  # the largest remainder first
        quotas[np.argmax(np.where(quotas < sizes, ideal - quotas, -np.inf))] += 1
    while quotas.sum() > max(count, len(values)):
        quotas[np.argmax(quotas)] -= 1
    generator = np.random.default_rng(seed)
    for value, quota in zip(values, quotas, strict=True):
        drawn[generator.permutation(np.flatnonzero(classes == value))[:quota]] = True
    return drawn


def _load(path: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    keys = (f"{part}_images", f"{part}_labels")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: list[npt.NDArray[Any]] = [file[key] for key in keys]
    except FileNotFoundError as error:
        raise ArchiveError(f"{path}: no such file; set ingest.source.path") from error
    except KeyError as error:
        raise ArchiveError(f"{path}: {error.args[0]}; it needs {{train,val,test}}_{{images,labels}}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ArchiveError(f"{path}: not an .npz of plain arrays ({error}); save it with numpy.savez") from error
    images, labels = arrays
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ArchiveError(
            f"{path}: {keys[0]} is {images.dtype} {images.shape}; it must be uint8 (n, h, w) or (n, h, w, 3)"
        )
    if labels.shape not in {(len(images),), (len(images), 1)} or not np.issubdtype(labels.dtype, np.integer):
        raise ArchiveError(
            f"{path}: {keys[1]} is {labels.dtype} {labels.shape}; it must be one integer class for each of "
            f"{len(images)} images"
        )
    return images, labels.reshape(-1).astype(np.int64)


def _names(classes: npt.NDArray[np.int64], source: NpzSource, path: Path) -> list[str]:
    if len(classes) and not source.class_names and classes.min() < 0:
        raise ArchiveError(f"{path}: a class is negative; number the classes 0, 1, ...")
    if not source.class_names:
        return [str(value) for value in classes.tolist()]
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(source.class_names):
        raise ConfigError(
            f"{path} holds classes {np.unique(classes).tolist()}, ingest.source.class_names names "
            f"{len(source.class_names)}: {', '.join(source.class_names)}"
        )
    return [source.class_names[value] for value in classes.tolist()]
