"""What a header says of an object, its patient and its study: the few elements that an ingest may use."""

from dataclasses import asdict, dataclass
from typing import Any

from scanloop.archive.dicom.header import DicomObject, object_name

ELEMENTS = {
    "patient_id": "PatientID",
    "study_id": "StudyInstanceUID",
    "series_id": "SeriesInstanceUID",
    "object_id": "SOPInstanceUID",
    "modality": "Modality",
    "study_date": "StudyDate",
    "sex": "PatientSex",
    "age": "PatientAge",
    "body_part": "BodyPartExamined",
    "view": "ViewPosition",
    "burned_in": "BurnedInAnnotation",
    "recognizable": "RecognizableVisualFeatures",
}
"""Elements that are read, by the names that they have here; nothing else of a header leaves the reader."""

MAX_TEXT = 256


@dataclass(frozen=True)
class Facts:
    """One object's header, as the file says it; None where it says nothing. The elements are those of `ELEMENTS`.

    Attributes:
        object_class: Name that DICOM gives to the kind of object.
        frames: Frames that it promises.
        elements: Elements in the header, those of nested items not counted.
    """

    object_class: str
    frames: int
    elements: int
    patient_id: str | None = None
    study_id: str | None = None
    series_id: str | None = None
    object_id: str | None = None
    modality: str | None = None
    study_date: str | None = None
    sex: str | None = None
    age: str | None = None
    body_part: str | None = None
    view: str | None = None
    burned_in: str | None = None
    recognizable: str | None = None


def read_facts(source: DicomObject) -> dict[str, Any]:
    """Facts of an object as a JSON-able mapping.

    Raises:
        ImageError: The number of frames is malformed.
    """
    said = {name: _text(source, keyword) for name, keyword in ELEMENTS.items()}
    return asdict(Facts(object_name(source.dataset), source.frames, len(source.dataset), **said))


def _text(source: DicomObject, keyword: str) -> str | None:
    try:
        value = str(source.dataset.get(keyword) or "").strip("\0 ")
    except Exception:  # a malformed element says nothing; the frames may still be whole
        return None
    return value[:MAX_TEXT] or None
