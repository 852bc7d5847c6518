"""From raw images to slices: one slice for the same bytes, one row of quarantine for what cannot come in."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import PIL.Image

from scanloop.archive.burned_in import text_attributes
from scanloop.archive.decode import (
    Decoded,
    check_size,
    decode_with_facts,
    encode_png,
    grey_if_equal,
    shrink,
    shrink_brightness,
)
from scanloop.archive.duplicates import thumbnail
from scanloop.archive.readers.record import Frame, RawImage
from scanloop.archive.shards import Location, ShardWriter
from scanloop.archive.splits import SPLITS
from scanloop.config import IngestConfig
from scanloop.errors import ImageError
from scanloop.types import Image


class Refusal(NamedTuple):
    """A row of the quarantine: an image that cannot come in, and why."""

    uri: str
    reason: str
    detail: str


@dataclass
class Slice:
    """What is known of one slice, gathered from every uri under which its bytes stand.

    Attributes:
        slice_id: SHA-256 of the source's digest and the frame.
        sha256: Digest of the source's bytes.
        frame: Index of the picture within the source.
        row: Position among the slices as they came in.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        bits: Bits a channel in the source.
        location: Where the stored slice stands.
        uris: Where the source stands, with the label that each place gives.
        patients: (site, patient) that any place names.
        studies: (site, study) that any place names.
        hidden_label: Of the first uri that has one.
        modality: Of the first uri that has one.
        attributes: Further facts by name, each of the first uri that has one.
        split: The most held-out one that a uri gives.
    """

    slice_id: str
    sha256: str
    frame: int
    row: int
    height: int
    width: int
    bits: int
    location: Location
    uris: list[tuple[str, str | None]] = field(default_factory=list)
    patients: list[tuple[str | None, str]] = field(default_factory=list)
    studies: list[tuple[str | None, str]] = field(default_factory=list)
    site: str | None = None
    hidden_label: str | None = None
    modality: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    split: str | None = None

    @property
    def labels(self) -> list[str]:
        """Distinct labels that the uris give, sorted: none, one, or several that contradict each other."""
        return sorted({label for _, label in self.uris if label is not None})

    @property
    def label(self) -> str | None:
        """The one label, if there is one."""
        return self.labels[0] if len(self.labels) == 1 else None

    def add(self, raw: RawImage) -> None:
        """Gather what one more uri says."""
        self.uris.append((raw.uri, raw.label))
        for known, name in ((self.patients, raw.patient_id), (self.studies, raw.study_id)):
            if name is not None and (raw.site, name) not in known:
                known.append((raw.site, name))
        self.site = self.site or raw.site
        self.hidden_label = self.hidden_label or raw.hidden_label
        self.modality = self.modality or raw.modality
        self.attributes = {**raw.attributes, **self.attributes}
        self.split = max(self.split, raw.split, key=lambda name: -1 if name is None else SPLITS.index(name))


class Intake:
    """Takes raw images one by one; decodes each distinct source once and writes it into a shard.

    Attributes:
        slices: Slices so far, by id, in the order in which they came.
        refusals: Rows of the quarantine so far.
        uris: Images offered so far.
        bytes_in: Their bytes.
    """

    def __init__(self, config: IngestConfig, shards: ShardWriter, keep_thumbnail: Callable[[Image], object]) -> None:
        self.slices: dict[str, Slice] = {}
        self.refusals: list[Refusal] = []
        self.uris = 0
        self.bytes_in = 0
        self._config = config
        self._shards = shards
        self._keep_thumbnail = keep_thumbnail
        self._refused: dict[str, ImageError] = {}

    def add(self, raw: RawImage) -> None:
        """Take an image in, count it as a copy, or put it into quarantine; nothing that it holds can stop the run."""
        self.uris += 1
        self.bytes_in += len(raw.payload) if isinstance(raw.payload, bytes) else raw.payload.nbytes
        sha256 = payload_digest(raw.payload)
        slice_id = hashlib.sha256(f"{sha256}:{raw.frame}".encode()).hexdigest()
        try:
            if raw.fault is not None:
                raise raw.fault
            if slice_id in self._refused:
                raise self._refused[slice_id]
            if slice_id not in self.slices:
                self.slices[slice_id] = self._new_slice(raw, sha256, slice_id)
            self.slices[slice_id].add(raw)
        except ImageError as error:
            self.refusals.append(Refusal(raw.uri, error.reason, error.detail))
            if raw.fault is None:
                self._refused[slice_id] = error.with_traceback(None)

    def finish(self) -> list[Slice]:
        """Close the shards and return the slices in their order; those with conflicting labels go to quarantine."""
        self._shards.close()
        conflicting = [one for one in self.slices.values() if len(one.labels) > 1]
        for one in conflicting:
            given = {uri: label for uri, label in one.uris if label is not None}
            detail = "the same bytes stand under " + " and ".join(f"{label} ({uri})" for uri, label in given.items())
            self.refusals.extend(Refusal(uri, "conflicting_labels", detail) for uri, _ in one.uris)
            del self.slices[one.slice_id]
        for shard in sorted({one.location.shard for one in conflicting}):
            kept = [one for one in self.slices.values() if one.location.shard == shard]
            locations = self._shards.keep_only(shard, [(one.slice_id, one.location) for one in kept])
            for one, location in zip(kept, locations, strict=True):
                one.location = location
        self.refusals.sort()
        return list(self.slices.values())

    def _new_slice(self, raw: RawImage, sha256: str, slice_id: str) -> Slice:
        height, width, bits, stored = self._decode(raw.payload)
        attributes = text_attributes(stored, self._config.source)
        location = self._shards.add(slice_id, encode_png(stored))
        self._keep_thumbnail(thumbnail(stored))
        row = len(self.slices)
        return Slice(slice_id, sha256, raw.frame, row, height, width, bits, location, attributes=attributes)

    def _decode(self, payload: bytes | Image | Frame) -> tuple[int, int, int, Image]:
        """Height, width and bits of the source, and the slice as it is stored."""
        limits = {"min_side_px": self._config.min_side_px, "max_pixels": self._config.max_pixels}
        short_side_px = self._config.short_side_px
        if isinstance(payload, Frame):
            brightness, bits = payload.load()
            check_size(*brightness.shape[:2], **limits)
            return *brightness.shape[:2], bits, shrink_brightness(brightness, short_side_px)
        if isinstance(payload, bytes):
            decoded = decode_with_facts(payload, **limits, short_side_px=short_side_px)
        else:
            check_size(*payload.shape[:2], **limits)
            decoded = Decoded(grey_if_equal(payload), 8, *payload.shape[:2])
        stored = np.asarray(shrink(PIL.Image.fromarray(decoded.image), short_side_px))
        return decoded.height, decoded.width, decoded.bits, stored


def payload_digest(payload: bytes | Image | Frame) -> str:
    """SHA-256 of a file's bytes, or of an array's shape, type and values, in hexadecimal."""
    if isinstance(payload, Frame):
        return payload.sha256
    if not isinstance(payload, np.ndarray):
        return hashlib.sha256(payload).hexdigest()
    head = f"{payload.shape}:{payload.dtype.str}:".encode()
    return hashlib.sha256(head + np.ascontiguousarray(payload).tobytes()).hexdigest()
