"""Readers: each turns one kind of source into a stream of raw images, sorted by uri."""

from collections.abc import Callable, Iterator
from typing import Any

from scanloop.archive.readers.dicom import read_dicom
from scanloop.archive.readers.folder import read_folder
from scanloop.archive.readers.hiding import hide
from scanloop.archive.readers.medmnist import read_medmnist
from scanloop.archive.readers.npz import read_npz
from scanloop.archive.readers.record import Known, RawImage
from scanloop.archive.readers.synthetic import read_synthetic
from scanloop.archive.readers.table import read_table
from scanloop.config import IngestConfig
from scanloop.sources import DicomSource, FolderSource, MedmnistSource, NpzSource, PatientSource, TableSource

__all__ = ["RawImage", "read"]


def read(
    config: IngestConfig,
    evidence: dict[str, Any] | None = None,
    recall: Callable[[str, str | None], Known | None] = lambda *_: None,
) -> Iterator[RawImage]:
    """Images of the configured source, one after the other, sorted by uri; memory does not grow with their bytes.

    Args:
        config: Source and limits.
        evidence: Is filled, when all has been read, with what de-identification did, if anything.
        recall: What is known of a file, by its uri and version, all images of which came in earlier: a file that must
            be opened to list its images is then left closed, and its images do not come. None of other files.

    Raises:
        ArchiveError: The source is missing, is not what its kind says, or holds no image.
        ConfigError: The configuration does not fit the source.
    """
    evidence = {} if evidence is None else evidence
    if isinstance(config.source, FolderSource):
        return _hidden(read_folder(config.source), config.source, evidence)
    if isinstance(config.source, TableSource):
        return _hidden(read_table(config.source), config.source, evidence)
    if isinstance(config.source, NpzSource):
        return read_npz(config.source)
    if isinstance(config.source, MedmnistSource):
        return read_medmnist(config.source)
    if isinstance(config.source, DicomSource):
        return read_dicom(config, evidence, recall)
    return read_synthetic(config)


def _hidden(images: Iterator[RawImage], source: PatientSource, evidence: dict[str, Any]) -> Iterator[RawImage]:
    return hide(images, source, evidence) if source.deidentify else images
