"""Arrays in an .npz file with MedMNIST's six keys, in the splits that it brings."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.archive.readers.files import read_whole
from scanloop.archive.readers.labels import draw_stratified
from scanloop.archive.readers.record import RawImage
from scanloop.errors import ArchiveError, ConfigError
from scanloop.sources import MedmnistSource, NpzSource
from scanloop.storage.address import archive_name, is_url

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
    yield from read_parts(source, source.path)


def read_parts(source: NpzSource | MedmnistSource, location: str) -> Iterator[RawImage]:
    """Images of an .npz at a path or an address, as `read_npz` says."""
    name = archive_name(location)
    file = io.BytesIO(read_whole(location, source.endpoint_url)) if is_url(location) else Path(location)
    for part, split in PARTS.items():
        images, classes = _load(file, name, part)
        names = _names(classes, source, name)
        known = np.ones(len(classes), bool)
        if split == "train":
            known = draw_stratified(classes, source.labelled, source.seed)
        digits = max(6, len(str(len(classes))))  # so that the uris sort as the rows do
        for row, (image, label) in enumerate(zip(images, names, strict=True)):
            yield RawImage(
                uri=f"{name}/{part}/{row:0{digits}d}",
                payload=image,
                label=label if known[row] else None,
                hidden_label=None if known[row] else label,
                split=split,
            )


def _load(path: Path | io.BytesIO, name: str, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    if isinstance(path, io.BytesIO):
        path.seek(0)
    keys = (f"{part}_images", f"{part}_labels")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: list[npt.NDArray[Any]] = [file[key] for key in keys]
    except FileNotFoundError as error:
        raise ArchiveError(f"{name}: no such file; set ingest.source.path") from error
    except KeyError as error:
        raise ArchiveError(f"{name}: {error.args[0]}; it needs {{train,val,test}}_{{images,labels}}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ArchiveError(f"{name}: not an .npz of plain arrays ({error}); save it with numpy.savez") from error
    images, labels = arrays
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ArchiveError(
            f"{name}: {keys[0]} is {images.dtype} {images.shape}; it must be uint8 (n, h, w) or (n, h, w, 3)"
        )
    if labels.shape not in {(len(images),), (len(images), 1)} or not np.issubdtype(labels.dtype, np.integer):
        raise ArchiveError(
            f"{name}: {keys[1]} is {labels.dtype} {labels.shape}; it must be one integer class for each of "
            f"{len(images)} images"
        )
    return images, labels.reshape(-1).astype(np.int64)


def _names(classes: npt.NDArray[np.int64], source: NpzSource | MedmnistSource, name: str) -> list[str]:
    if len(classes) and not source.class_names and classes.min() < 0:
        raise ArchiveError(f"{name}: a class is negative; number the classes 0, 1, ...")
    if not source.class_names:
        return [str(value) for value in classes.tolist()]
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(source.class_names):
        raise ConfigError(
            f"{name} holds classes {np.unique(classes).tolist()}, ingest.source.class_names names "
            f"{len(source.class_names)}: {', '.join(source.class_names)}"
        )
    return [source.class_names[value] for value in classes.tolist()]
