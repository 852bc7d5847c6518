"""Who and what a DICOM object is said to be: as its header says, or under pseudonyms."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from scanloop.archive.deidentify import parse_age, parse_day
from scanloop.archive.dicom.facts import ELEMENTS, Facts
from scanloop.archive.identities import Disguise
from scanloop.archive.readers.record import Known
from scanloop.errors import ImageError
from scanloop.sources import DicomSource


class Identity(NamedTuple):
    """What the catalog is told of an object.

    Attributes:
        patient_id: Patient, or a stand-in.
        study_id: Examination, or a stand-in.
        modality: Code.
        attributes: Further facts by name: study_date, sex, age_years, body_part, view.
    """

    patient_id: str | None
    study_id: str | None
    modality: str | None
    attributes: dict[str, str]


class OpenIdentities:
    """Paths and ids as they are: for public sets."""

    def __init__(self, source: DicomSource) -> None:
        self._root = Path(source.path).absolute().name

    def uri(self, inside: str) -> str:
        """Name of the archive and path inside."""
        return f"{self._root}/{inside}"

    def identity(self, _uri: str, facts: Facts) -> Identity | None:
        """What the header says."""
        return Identity(facts.patient_id, facts.study_id, facts.modality, _said(facts))

    def remember(self, _uri: str, _known: Known) -> None:
        """Nothing is to be told of a file that came in earlier."""

    def finish(self) -> dict[str, Any]:
        """Nothing was withheld."""
        return {}


class HiddenIdentities:
    """Pseudonyms, an allow-list, the map back to the paths, and the evidence."""

    def __init__(self, source: DicomSource) -> None:
        self._disguise = Disguise(source)
        self._counts: Counter[str] = Counter()
        self._burned_in: Counter[str] = Counter()

    def uri(self, inside: str) -> str:
        """Opaque name of a file."""
        return self._disguise.uri(inside)

    def identity(self, uri: str, facts: Facts) -> Identity | None:
        """What may be said of an object; None of one whose patient was erased.

        Raises:
            ImageError: Its header says that text is burned into its pixels.
        """
        disguise = self._disguise
        if disguise.is_forgotten(facts.patient_id):
            disguise.leave_out(uri)
            return None
        self._counts.update(objects=1, elements=facts.elements)
        patient = disguise.patient(uri, facts.patient_id)
        burned_in = facts.burned_in if facts.burned_in in {"YES", "NO"} else "not stated"
        self._burned_in[burned_in] += 1
        if burned_in == "YES":
            raise ImageError("burned_in_text", "the header says that text is burned into the pixels")
        study, modality = disguise.study(facts.study_id), disguise.modality(facts.modality)
        identity = Identity(patient, study, modality, disguise.attributes(_said(facts), facts.patient_id))
        said = (patient, study, modality, *identity.attributes.values())
        ids = (facts.patient_id, facts.study_id, facts.series_id, facts.object_id, facts.study_date)
        disguise.check(said, ids)
        return identity

    def remember(self, uri: str, known: Known) -> None:
        """Put into the map whom a file shows that came in earlier and is not opened again."""
        self._disguise.remember(uri, known.patient_id, known.study_id)
        self._counts["objects_of_base"] += 1

    def finish(self) -> dict[str, Any]:
        """Write the map, and return the evidence as a JSON-able mapping."""
        return self._disguise.finish() | {
            "read_from_headers": sorted(ELEMENTS.values()),
            "objects": self._counts["objects"],
            "objects_of_base": self._counts["objects_of_base"],
            "elements_withheld": self._counts["elements"] - self._disguise.kept_values,
            "burned_in_annotation": dict(sorted(self._burned_in.items())),
        }


def _said(facts: Facts) -> dict[str, str]:
    day, years = parse_day(facts.study_date), parse_age(facts.age)
    said = {
        "study_date": day.isoformat() if day else None,
        "sex": facts.sex,
        "age_years": None if years is None else str(years),
        "body_part": facts.body_part,
        "view": facts.view,
    }
    return {name: value for name, value in said.items() if value is not None}
