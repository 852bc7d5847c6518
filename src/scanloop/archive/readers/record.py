"""What a reader yields: one image as the source holds it, with what the source says of it."""

from dataclasses import dataclass

from scanloop.errors import ImageError
from scanloop.types import Image


@dataclass(frozen=True)
class RawImage:
    """One image of a source, not yet decoded.

    Attributes:
        uri: Where it stands; unique in its source.
        payload: The file's bytes, or the uint8 array, (h, w) or (h, w, 3), of a source of arrays.
        frame: Index of the picture within the payload.
        label: Class that an expert gave; None where unlabelled.
        hidden_label: Class that the source knows and the loop may buy; None where there is none to buy.
        patient_id: Whom it shows, where known.
        study_id: The examination that it belongs to, where known.
        site: Where it was taken, where known.
        modality: Code of the modality in DICOM's terms, for example "MR", where known.
        split: "train", "validation" or "test" where the source decides, else None.
        fault: Why the reader could not read it; such an image goes to quarantine.
    """

    uri: str
    payload: bytes | Image
    frame: int = 0
    label: str | None = None
    hidden_label: str | None = None
    patient_id: str | None = None
    study_id: str | None = None
    site: str | None = None
    modality: str | None = None
    split: str | None = None
    fault: ImageError | None = None
