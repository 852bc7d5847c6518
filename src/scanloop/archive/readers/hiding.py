"""De-identification of what any reader yields: the same images under pseudonyms."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from scanloop.archive.identities import Disguise
from scanloop.archive.readers.record import RawImage
from scanloop.sources import PatientSource
from scanloop.storage.address import archive_name


def hide(images: Iterable[RawImage], source: PatientSource, evidence: dict[str, Any]) -> Iterator[RawImage]:
    """The same images under pseudonyms: uri, patient, study and site; of other facts the allow-list alone.

    For readers of any kind of file; that of DICOM, which knows more of its files, speaks to `Disguise` itself. The
    order of the stream stays, and an alphabetical one would tell whose pseudonym is whose: readers list their files by
    `hidden_order` first. Classes and labels stay as they are.

    Args:
        images: As a reader yields them; a uri is the archive's name and the path inside, with "#" and the frame, if it
            is one of several.
        source: Archive, key and options.
        evidence: Is filled, when all has been read.
    """
    disguise, root = Disguise(source), archive_name(source.path)
    for raw in images:
        frame = f"#{raw.frame}" if raw.uri.endswith(f"#{raw.frame}") else ""
        inside = raw.uri.removesuffix(frame).removeprefix(f"{root}/")
        uri = disguise.uri(inside)
        if disguise.is_forgotten(raw.patient_id):
            disguise.leave_out(uri)
            continue
        hidden = replace(
            raw,
            uri=uri + frame,
            patient_id=disguise.patient(uri, raw.patient_id),
            study_id=disguise.study(raw.study_id),
            site=disguise.site(raw.site),
            modality=disguise.modality(raw.modality),
            attributes=disguise.attributes(raw.attributes, raw.patient_id),
        )
        said = (hidden.uri, hidden.patient_id, hidden.study_id, hidden.site, *hidden.attributes.values())
        disguise.check(said, (inside, raw.patient_id, raw.study_id, raw.site, raw.attributes.get("study_date")))
        yield hidden
    evidence.update(disguise.finish())
