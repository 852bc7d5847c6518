"""What a reader yields: one image as the source holds it, with what the source says of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from scanloop.errors import ImageError
from scanloop.types import Image


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a file whose frames are decoded one by one, and only when they are new.

    Attributes:
        sha256: Digest of the whole file's bytes.
        nbytes: Bytes that the frame adds to those read: those of the file for its first frame, none for the others.
        load: Decodes it: float32 (h, w) or (h, w, 3), range 0..255 with as many levels as the source has, and the bits
            a channel of the source. Raises ImageError where it cannot be decoded.
    """

    sha256: str
    nbytes: int
    load: Callable[[], tuple[npt.NDArray[np.float32], int]]


@dataclass(frozen=True, slots=True)
class Later:
    """A file that is listed but not read: its bytes come when they are asked for.

    Attributes:
        nbytes: Its size, as listed.
        load: Reads it. Raises ImageError where it cannot be read.
    """

    nbytes: int
    load: Callable[[], bytes]


class Known(NamedTuple):
    """What an earlier catalog says of a file: whom and which examination it shows, under their pseudonyms if hidden."""

    patient_id: str | None
    study_id: str | None


Payload: TypeAlias = bytes | Image | Frame | Later
"""What an image is made from, at hand or not."""


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of a source, not yet decoded.

    Attributes:
        uri: Where it stands; unique in its source.
        payload: The file's bytes, at hand or to be read; the uint8 array, (h, w) or (h, w, 3), of a source of arrays;
            or a frame of a file.
        frame: Index of the picture within the payload.
        label: Class that an expert gave; None where unlabelled.
        hidden_label: Class that the source knows and the loop may buy; None where there is none to buy.
        patient_id: Whom it shows, where known.
        study_id: The examination that it belongs to, where known.
        site: Where it was taken, where known.
        modality: Code of the modality in DICOM's terms, for example "MR", where known.
        attributes: Further facts by name, as text: study_date, sex, age_years, body_part, view.
        split: "train", "validation" or "test" where the source decides, else None.
        fault: Why the reader could not read it; such an image goes to quarantine.
        version: What changes when the file does, known without reading it: size and time of change, or an ETag. None
            where the source tells no such thing.
        file: Uri of the file that it stands in, where that may hold several images, which come one after the other;
            its version also changes with what the source says of it.
    """

    uri: str
    payload: Payload
    frame: int = 0
    label: str | None = None
    hidden_label: str | None = None
    patient_id: str | None = None
    study_id: str | None = None
    site: str | None = None
    modality: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    fault: ImageError | None = None
    version: str | None = None
    file: str | None = None

    def seen(self) -> str | None:
        """What changes when the file does, or what the source says of it; None where that cannot be known."""
        if self.version is None or self.file is not None:
            return self.version
        ids = (self.patient_id, self.study_id, self.site, self.modality)
        facts = (self.label, self.hidden_label, self.split, *ids, sorted(self.attributes.items()))
        return json.dumps([self.version, facts])

    def loaded(self) -> "RawImage":
        """The same image with its bytes at hand, or with the fault for which they are not."""
        if not isinstance(self.payload, Later):
            return self
        try:
            return replace(self, payload=self.payload.load())
        except ImageError as error:
            return replace(self, payload=b"", fault=error.with_traceback(None))
