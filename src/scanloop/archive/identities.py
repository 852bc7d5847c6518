"""Who images are said to show, hidden: one set of pseudonyms, one private map and one evidence for any reader."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from scanloop.archive.deidentify import (
    MAX_AGE_YEARS,
    MAX_SHIFT_DAYS,
    MODALITIES,
    SEXES,
    TERMS,
    Pseudonyms,
    parse_day,
    read_forgotten,
    read_key,
    refuse_inside,
    write_private,
)
from scanloop.sources import PatientSource
from scanloop.storage.address import archive_name, is_remote, local_path

OPTIONS = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
"""Codes of DICOM PS3.16 CID 7050 for what is done here."""
MAP_COLUMNS = ("uri", "path", "patient")


def is_hidden(source: object) -> bool:
    """Whether a source's images come in under pseudonyms."""
    return isinstance(source, PatientSource) and source.deidentify


class Disguise:
    """Pseudonyms of one archive, the map back to its paths, and the evidence of what was withheld.

    The map stands beside the key and is written when everything has been read. It alone leads from a uri to a path and
    to the pseudonym of the patient; whoever has the key can make it again from the archive.

    Args:
        source: Archive, key and options.

    Raises:
        ConfigError: The key lies in the archive, or cannot be used.
    """

    def __init__(self, source: PatientSource) -> None:
        assert source.key_file is not None
        key_file, place = Path(source.key_file), source.path
        if not is_remote(place):
            refuse_inside(key_file, local_path(place), "the archive")
            place = str(local_path(place).absolute())
        self._source, self._kind = source, str(getattr(source, "kind", "file"))
        self._pseudonyms = Pseudonyms(read_key(key_file))
        self._forgotten = read_forgotten(key_file)
        name = f"{key_file.name}.{PurePosixPath(archive_name(place)).stem}-{self._pseudonyms.archive(place)}.map.csv"
        self.map_file = key_file.with_name(name)
        self._paths: dict[str, str] = {}
        self._patient_of: dict[str, str] = {}
        self._studies: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()

    def uri(self, inside: str) -> str:
        """Opaque name of a file."""
        uri = self._pseudonyms.path(self._kind, inside)
        self._paths[uri] = inside
        return uri

    def patient(self, uri: str, patient_id: str | None) -> str | None:
        """Stand-in of the patient whom a file shows."""
        patient = self._pseudonyms.patient(patient_id)
        if patient:
            self._patient_of[uri] = sys.intern(patient)  # of many files
        return patient

    def study(self, study_id: str | None) -> str | None:
        """Stand-in of an examination."""
        study = self._pseudonyms.study(study_id)
        self._studies.update([study] if study else [])
        return study

    def site(self, site: str | None) -> str | None:
        """Stand-in of a place."""
        return self._pseudonyms.site(site)

    def remember(self, uri: str, patient: str | None, study: str | None) -> None:
        """Take over the stand-ins that an earlier catalog holds for a file."""
        if patient:
            self._patient_of[uri] = sys.intern(patient)
        self._studies.update([study] if study else [])

    def is_forgotten(self, patient_id: str | None) -> bool:
        """Whether this patient was erased, and so must not come in again."""
        return self._pseudonyms.patient(patient_id) in self._forgotten

    def leave_out(self, uri: str) -> None:
        """Count a file of a patient who was erased, and keep nothing else of it."""
        self._paths.pop(uri, None)
        self._patient_of.pop(uri, None)
        self._counts["forgotten"] += 1

    def modality(self, code: str | None) -> str | None:
        """The code, if DICOM defines it."""
        allowed = code if code in MODALITIES else None
        self._kept.update(["modality"] if allowed else [])
        return allowed

    def attributes(self, said: Mapping[str, str], patient_id: str | None) -> dict[str, str]:
        """What may stay of further facts: defined terms, and, if chosen, shifted dates, sex and age.

        Args:
            said: By name: body_part, view, study_date (ISO 8601), sex, age_years; others are withheld.
            patient_id: Whose dates are shifted together.
        """
        allowed: dict[str, str | None] = {}
        for name, terms in TERMS.items():
            allowed[name] = said.get(name) if said.get(name) in terms else None
        if self._source.modified_dates and (day := parse_day(said.get("study_date", "").replace("-", ""))):
            shifted = self._pseudonyms.shifted(day, patient_id)
            allowed["study_date"] = shifted.isoformat() if shifted else None
        if self._source.patient_characteristics:
            years = said.get("age_years", "")
            allowed["sex"] = said.get("sex") if said.get("sex") in SEXES else None
            allowed["age_years"] = str(min(int(years), MAX_AGE_YEARS)) if years.isdecimal() else None
        kept = {name: value for name, value in allowed.items() if value is not None}
        self._kept.update(list(kept))
        return kept

    def check(self, said: Iterable[str | None], originals: Iterable[str | None]) -> None:
        """Count an object's originals, and those that stand in what is said of it."""
        told = set(said)
        for original in originals:
            self._counts["checked"] += original is not None
            self._counts["found"] += original is not None and original in told

    @property
    def kept_values(self) -> int:
        """Values that were let through so far."""
        return self._kept.total()

    def finish(self) -> dict[str, Any]:
        """Write the map, and return the evidence as a JSON-able mapping."""
        sink = io.StringIO()
        rows = [(uri, path, self._patient_of.get(uri, "")) for uri, path in sorted(self._paths.items())]
        csv.writer(sink, lineterminator="\n").writerows([MAP_COLUMNS, *rows])
        write_private(self.map_file, sink.getvalue().encode("utf-8", "surrogateescape"))
        options = [("113107", self._source.modified_dates), ("113108", self._source.patient_characteristics)]
        codes = ["113100", *(code for code, chosen in options if chosen)]
        return {
            "methods": {code: OPTIONS[code] for code in codes},
            "pseudonyms": "HMAC-SHA-256 under a secret key, 128 bits: uri, patient_id, study_id, site",
            "kept_values": dict(sorted(self._kept.items())),
            "allowed_terms": {name: sorted(terms) for name, terms in TERMS.items()} | {"modality": sorted(MODALITIES)},
            "shift_days": [1, MAX_SHIFT_DAYS] if self._source.modified_dates else None,
            "max_age_years": MAX_AGE_YEARS if self._source.patient_characteristics else None,
            "files": len(self._paths),
            "files_of_erased_patients_left_out": self._counts["forgotten"],
            "patients": len(set(self._patient_of.values())),
            "studies": len(self._studies),
            "originals_checked": self._counts["checked"],
            "originals_found": self._counts["found"],
            "not_done": [
                "text that is burned into pixels is flagged, not removed",
                "pixels are not defaced: a head in thin slices can be rendered as a face",
                "slice_id and sha256 are digests of the files: whoever holds a file can recognise it",
                "the archive's own name, the classes and the labels are taken as they are",
            ],
        }


def hidden_order(source: PatientSource) -> Callable[[str], str]:
    """What to sort paths inside an archive by: their pseudonyms where the source is hidden, else the paths."""
    if not source.deidentify or source.key_file is None:
        return str
    return partial(Pseudonyms(read_key(Path(source.key_file))).path, "")
