"""Who and what an image is said to be: as its header says, or under pseudonyms, with evidence of what is withheld."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from scanloop.archive.deidentify import (
    MAX_AGE_YEARS,
    MAX_SHIFT_DAYS,
    MODALITIES,
    SEXES,
    TERMS,
    Pseudonyms,
    parse_age,
    parse_day,
    read_key,
    refuse_inside,
    write_private,
)
from scanloop.archive.dicom.facts import ELEMENTS, Facts
from scanloop.errors import ImageError
from scanloop.sources import DicomSource

OPTIONS = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
"""Codes of DICOM PS3.16 CID 7050 for what is done here."""


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

    def identity(self, facts: Facts) -> Identity:
        """What the header says."""
        day, years = parse_day(facts.study_date), parse_age(facts.age)
        said = {
            "study_date": day.isoformat() if day else None,
            "sex": facts.sex,
            "age_years": None if years is None else str(years),
            "body_part": facts.body_part,
            "view": facts.view,
        }
        return Identity(facts.patient_id, facts.study_id, facts.modality, _known(said))

    def finish(self) -> dict[str, Any] | None:
        """Nothing was withheld."""
        return None


class HiddenIdentities:
    """Pseudonyms, an allow-list, the map back to the paths, and the evidence.

    The map stands beside the key and is written when everything has been read. It is the only file that leads from a
    uri to a path; whoever has the key can make it again from the archive.
    """

    def __init__(self, source: DicomSource) -> None:
        assert source.key_file is not None
        self._source = source
        self._key_file, root = Path(source.key_file), Path(source.path)
        refuse_inside(self._key_file, root, "the archive")
        self._pseudonyms = Pseudonyms(read_key(self._key_file))
        name = f"{self._key_file.name}.{root.absolute().stem}-{self._pseudonyms.archive(root)}.map.csv"
        self.map_file = self._key_file.with_name(name)
        self._paths: dict[str, str] = {}
        self._patients: set[str] = set()
        self._studies: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._burned_in: Counter[str] = Counter()

    def uri(self, inside: str) -> str:
        """Opaque name of a file."""
        uri = self._pseudonyms.path(inside)
        self._paths[uri] = inside
        return uri

    def identity(self, facts: Facts) -> Identity:
        """What may be said of an object.

        Raises:
            ImageError: Its header says that text is burned into its pixels.
        """
        self._counts.update(objects=1, elements=facts.elements)
        burned_in = facts.burned_in if facts.burned_in in {"YES", "NO"} else "not stated"
        self._burned_in[burned_in] += 1
        if burned_in == "YES":
            raise ImageError("burned_in_text", "the header says that text is burned into the pixels")
        patient, study = self._pseudonyms.patient(facts.patient_id), self._pseudonyms.study(facts.study_id)
        self._patients.update([patient] if patient else [])
        self._studies.update([study] if study else [])
        modality = facts.modality if facts.modality in MODALITIES else None
        identity = Identity(patient, study, modality, _known(self._allowed(facts)))
        self._kept.update(["modality"] if modality else [], **dict.fromkeys(identity.attributes, 1))
        self._check(identity, facts)
        return identity

    def finish(self) -> dict[str, Any] | None:
        """Write the map, and return the evidence as a JSON-able mapping."""
        sink = io.StringIO()
        csv.writer(sink, lineterminator="\n").writerows([("uri", "path"), *sorted(self._paths.items())])
        write_private(self.map_file, sink.getvalue().encode("utf-8", "surrogateescape"))
        options = [("113107", self._source.modified_dates), ("113108", self._source.patient_characteristics)]
        codes = ["113100", *(code for code, chosen in options if chosen)]
        return {
            "methods": {code: OPTIONS[code] for code in codes},
            "pseudonyms": "HMAC-SHA-256 under a secret key, 128 bits: uri, patient_id, study_id",
            "read_from_headers": sorted(ELEMENTS.values()),
            "kept_values": dict(sorted(self._kept.items())),
            "allowed_terms": {name: sorted(terms) for name, terms in TERMS.items()} | {"modality": sorted(MODALITIES)},
            "shift_days": [1, MAX_SHIFT_DAYS] if self._source.modified_dates else None,
            "max_age_years": MAX_AGE_YEARS if self._source.patient_characteristics else None,
            "files": len(self._paths),
            "objects": self._counts["objects"],
            "elements_withheld": self._counts["elements"] - self._kept.total(),
            "patients": len(self._patients),
            "studies": len(self._studies),
            "originals_checked": self._counts["checked"],
            "originals_found": self._counts["found"],
            "burned_in_annotation": dict(sorted(self._burned_in.items())),
            "not_done": [
                "pixels are not searched for burned-in text; objects whose header states it are in quarantine",
                "pixels are not defaced: a head in thin slices can be rendered as a face",
                "slice_id and sha256 are digests of the files: whoever holds a file can recognise it",
                "the archive's own name and the labels are taken as they are",
            ],
        }

    def _allowed(self, facts: Facts) -> dict[str, str | None]:
        allowed: dict[str, str | None] = {}
        for name, terms in TERMS.items():
            value = getattr(facts, name)
            allowed[name] = value if value in terms else None
        if self._source.modified_dates and (day := parse_day(facts.study_date)):
            shifted = self._pseudonyms.shifted(day, facts.patient_id)
            allowed["study_date"] = shifted.isoformat() if shifted else None
        if self._source.patient_characteristics:
            years = parse_age(facts.age)
            allowed["sex"] = facts.sex if facts.sex in SEXES else None
            allowed["age_years"] = None if years is None else str(years)
        return allowed

    def _check(self, identity: Identity, facts: Facts) -> None:
        """Count the object's originals, and those that stand in what is said of it."""
        said = {identity.patient_id, identity.study_id, identity.modality, *identity.attributes.values()}
        for original in (facts.patient_id, facts.study_id, facts.series_id, facts.object_id, facts.study_date):
            self._counts["checked"] += original is not None
            self._counts["found"] += original in said - {None}


def _known(said: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in said.items() if value is not None}
