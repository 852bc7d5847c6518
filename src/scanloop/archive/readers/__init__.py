"""Readers: each turns one kind of source into a stream of raw images, sorted by uri."""

from collections.abc import Callable, Iterator
from typing import Any

from scanloop.archive.readers.dicom import read_dicom
from scanloop.archive.readers.folder import read_folder
from scanloop.archive.readers.npz import read_npz
from scanloop.archive.readers.record import RawImage
from scanloop.archive.readers.synthetic import read_synthetic
from scanloop.config import IngestConfig
from scanloop.sources import DicomSource, FolderSource, NpzSource

__all__ = ["RawImage", "read"]


def read(
    config: IngestConfig,
    evidence: dict[str, Any] | None = None,
    is_known: Callable[[str, str | None], bool] = lambda *_: False,
) -> Iterator[RawImage]:
    """Images of the configured source, one after the other, sorted by uri; memory does not grow with their bytes.

    Args:
        config: Source and limits.
        evidence: Is filled, when all has been read, with what de-identification did, if anything.
        is_known: Whether all images of a file, by its uri and version, came in earlier: a file that must be opened to
            list its images is then left closed, and its images do not come.

    Raises:
        ArchiveError: The source is missing, is not what its kind says, or holds no image.
        ConfigError: The configuration does not fit the source.
    """
    if isinstance(config.source, FolderSource):
        return read_folder(config.source)
    if isinstance(config.source, NpzSource):
        return read_npz(config.source)
    if isinstance(config.source, DicomSource):
        return read_dicom(config, {} if evidence is None else evidence, is_known)
    return read_synthetic(config)
