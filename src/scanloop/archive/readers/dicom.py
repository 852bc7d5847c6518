"""DICOM objects in a directory or a tar: each frame an image, each object without one a row of the quarantine."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from scanloop.archive.dicom.facts import Facts
from scanloop.archive.dicom.identity import HiddenIdentities, Identity, OpenIdentities
from scanloop.archive.dicom.process import DicomProcess, Part
from scanloop.archive.readers.files import MAX_FILE_BYTES, SourceFile, list_files
from scanloop.archive.readers.labels import read_labels
from scanloop.archive.readers.record import Frame, Known, RawImage
from scanloop.config import IngestConfig
from scanloop.errors import ArchiveError, ImageError
from scanloop.sources import DicomSource

_CHUNK_BYTES = 1 << 20


def read_dicom(
    config: IngestConfig, evidence: dict[str, Any], recall: Callable[[str, str | None], Known | None]
) -> Iterator[RawImage]:
    """Every frame of every file, whatever its name, sorted by uri; a frame is decoded when its slice is new.

    A uri is the name of the directory or tar and the path inside, or a pseudonym of the path; of an object with several
    frames it ends in "#" and the index of the frame, from 0. Files that are no DICOM object with pixels come with the
    fault that says so.

    Args:
        config: Source and limits.
        evidence: Is filled, when all has been read, with what de-identification did.
        recall: What is known of a file, all frames of which came in earlier; it is then not opened.

    Raises:
        ArchiveError: The path is missing, the tar is broken, there is no file, or the table of labels cannot be read.
        ConfigError: The table of labels lacks a column or contradicts itself, or the key cannot be used.
    """
    source = config.source
    assert isinstance(source, DicomSource)
    root = Path(source.path)
    files = list_files(root)
    if not files:
        raise ArchiveError(f"{root} holds no file; set ingest.source.path")
    labels = read_labels(Path(source.labels)) if source.labels else ("path", {})
    identities = HiddenIdentities(source) if source.deidentify else OpenIdentities(source)
    named = sorted((identities.uri(file.inside), file) for file in files)
    with DicomProcess(min_side_px=config.min_side_px, max_pixels=config.max_pixels) as process:
        for uri, file in named:
            version = _seen(source, labels, file)
            if (known := recall(uri, version)) is not None:
                identities.remember(uri, known)
                continue
            try:
                part, facts = _open(process, file, source)
                sha256 = _digest(part)
                identity = identities.identity(uri, facts)
            except ImageError as error:
                yield RawImage(uri, b"", fault=error, version=version)
                continue
            if identity is None:  # of a patient who was erased
                continue
            label = _label(labels, file, facts)
            for image in _images(uri, _frames(process, part, facts, sha256), facts, identity, label):
                yield replace(image, version=version, file=uri)
    evidence.update(identities.finish())


def _seen(source: DicomSource, labels: tuple[str, dict[str, str]], file: SourceFile) -> str | None:
    """Version of a file and of what its images' facts depend on beside it."""
    key, label_of = labels
    told = label_of.get(file.inside) if key == "path" else sorted(label_of.items())
    options = (source.modalities, source.max_frames, source.modified_dates, source.patient_characteristics)
    facts = json.dumps([told, options]).encode()
    return file.version and f"{file.version}:{hashlib.sha256(facts).hexdigest()}"


def _images(
    uri: str, frames: Iterator[Frame], facts: Facts, identity: Identity, label: str | None
) -> Iterator[RawImage]:
    for index, frame in enumerate(frames):
        yield RawImage(
            uri=f"{uri}#{index}" if facts.frames > 1 else uri,
            payload=frame,
            frame=index,
            label=label,
            patient_id=identity.patient_id,
            study_id=identity.study_id,
            modality=identity.modality,
            attributes=identity.attributes,
        )


def _label(labels: tuple[str, dict[str, str]], file: SourceFile, facts: Facts) -> str | None:
    key, label_of = labels
    return label_of.get(file.inside if key == "path" else getattr(facts, key) or "")


def _open(process: DicomProcess, file: SourceFile, source: DicomSource) -> tuple[Part, Facts]:
    """Where a file's bytes lie and what its header says.

    Raises:
        ImageError: It cannot come in.
    """
    if file.fault is not None:  # its own words may name another path
        raise ImageError("unreadable", "neither a regular file nor a link to one in the archive")
    if file.size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"{file.size} bytes; at most {MAX_FILE_BYTES} are read")
    part = Part(file.path, file.offset, file.size)
    facts = process.facts(part)
    if facts.frames > source.max_frames:
        raise ImageError("too_large", f"{facts.frames} frames; at most {source.max_frames} come in")
    if source.modalities and facts.modality not in source.modalities:
        raise ImageError("other_modality", f"{facts.object_class}: not among the modalities that are wanted")
    return part, facts


def _frames(process: DicomProcess, part: Part, facts: Facts, sha256: str) -> Iterator[Frame]:
    for index in range(facts.frames):
        yield Frame(sha256, part.size if index == 0 else 0, partial(process.frame, part, index))


def _digest(part: Part) -> str:
    digest, left = hashlib.sha256(), part.size
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
    except OSError as error:  # gone since its header was read; its own words name a path
        raise ImageError("unreadable", f"it is gone, or cannot be read any more ({type(error).__name__})") from error
    return digest.hexdigest()
