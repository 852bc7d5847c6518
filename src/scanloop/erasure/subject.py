"""Whom an erasure is about: every name, id and place under which a run's folder knows one patient."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from scanloop.archive.deidentify import Pseudonyms, map_files
from scanloop.archive.splits import patient_names
from scanloop.artifacts import read_json, read_table

LEAST_LONG = 8
"""Texts of at least so many characters name the patient wherever they stand; shorter ones only as a whole value."""

_TOKEN = re.compile(r"[0-9a-f]{16,64}")


class Mentions:
    """Finds ids in texts, each as a word of its own: one that continues is another id.

    Args:
        ids: Texts of at least `LEAST_LONG` characters.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        given = frozenset(ids)
        self._hexadecimal = frozenset(one for one in given if _TOKEN.fullmatch(one))
        self._others = tuple(sorted(given - self._hexadecimal))

    def find(self, text: str) -> set[str]:
        """The ids that a text names."""
        found = self._hexadecimal.intersection(_TOKEN.findall(text))
        others = (one for one in self._others if one in text)
        return {*found, *(one for one in others if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text))}


@dataclass(frozen=True)
class Subject:
    """A patient as one run knows them. It is kept, privately, until the erasure is done: what is erased cannot be read.

    Attributes:
        patient_hash: Keyed hash, which names the erasure in its report and nobody in any other place.
        pseudonym: Stand-in under the key.
        names: Values of patient_id.
        slice_ids: Their slices.
        uris: Their uris, and those of the files behind frames, quarantined ones included.
        others: Ids that no one else has: studies, groups, digests of files, names in the lists of the splits.
        renamed: Groups that outlive a member whose slice they are named after, and their new names.
        shards: Of each shard that holds a slice of theirs: its digest, and the rows that stay.
    """

    patient_hash: str
    pseudonym: str
    names: tuple[str, ...]
    slice_ids: tuple[str, ...]
    uris: tuple[str, ...]
    others: tuple[str, ...]
    renamed: dict[str, str]
    shards: dict[str, dict[str, object]]

    @property
    def is_known(self) -> bool:
        """Whether the run knows anything of the patient."""
        return bool(self.slice_ids or self.uris)

    @cached_property
    def ids(self) -> frozenset[str]:
        """Texts of which none may stand in the folder as a value."""
        return frozenset((*self.names, *self.slice_ids, *self.uris, *self.others, *self.renamed, self.pseudonym))

    @cached_property
    def mentions(self) -> Mentions:
        """Finds those that may not stand anywhere in it, not even within a longer text."""
        return Mentions(text for text in self.ids if len(text) >= LEAST_LONG)


def find_subject(run: Path, patient: str, key: bytes, key_file: Path) -> Subject:
    """The patient in a run's catalog.

    Args:
        run: Folder of the run.
        patient: Id as the source gives it, or pseudonym.
        key: Secret of the pseudonyms.
        key_file: Where it stands; maps to original paths are beside it.

    Returns:
        Where no catalog is there yet: the names alone.
    """
    catalog, pseudonyms = run / "catalog", Pseudonyms(key)
    made, is_pseudonym = pseudonyms.patient(patient) or "", re.fullmatch(r"[0-9a-f]{32}", patient) is not None
    if not catalog.exists():
        name = patient if is_pseudonym else made
        return Subject(pseudonyms.erasure(name), name, tuple(sorted({patient, name})), (), (), (), {}, {})
    manifest, sources = read_table(catalog, "manifest"), read_table(catalog, "sources.parquet")
    pseudonym = patient if is_pseudonym and made not in set(manifest["patient_id"]) else made
    names = {patient, pseudonym}
    rows = manifest["patient_id"].isin(names)
    leaving, staying = manifest[rows], manifest[~rows]
    slice_ids = sorted(leaving["slice_id"])
    uris = set(sources.loc[sources["slice_id"].isin(slice_ids), "uri"])
    uris |= _quarantined(catalog, names, _files_of(uris) | _mapped(key_file, pseudonym))
    outlived = set(leaving["group_id"]) & set(staying["group_id"])
    alone = [set(leaving[name].dropna()) - set(staying[name]) for name in ("study_id", "sha256", "group_id")]
    alone.append(set(patient_names(leaving)) - set(patient_names(staying)))
    return Subject(
        pseudonyms.erasure(pseudonym),
        pseudonym,
        tuple(sorted(names)),
        tuple(slice_ids),
        tuple(sorted(uris | _files_of(uris))),
        tuple(sorted(set().union(*alone))),
        _renamed(staying, outlived, slice_ids),
        _shards(catalog, manifest, set(leaving["shard"]), set(slice_ids)),
    )


def _files_of(uris: Iterable[str]) -> set[str]:
    """Uris of the files behind uris of frames."""
    return {re.sub(r"#\d+$", "", uri) for uri in uris}


def _mapped(key_file: Path, pseudonym: str) -> set[str]:
    """Uris of files whose header named the patient, though no slice came of them."""
    found = set()
    for path in map_files(key_file):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            found |= {row["uri"] for row in csv.DictReader(file) if row.get("patient") == pseudonym}
    return found


def _quarantined(catalog: Path, names: set[str], files: set[str]) -> set[str]:
    """Uris in quarantine: of these files, or of paths in which the source's own pattern finds the patient."""
    uris = read_table(catalog, "quarantine.parquet")["uri"].tolist()
    pattern = read_json(catalog / "artifact.json").get("config", {}).get("source", {}).get("patient_pattern")
    found = {uri for uri in uris if _files_of([uri]) & files}
    if pattern:
        matches = [(uri, re.search(pattern, uri.partition("/")[2])) for uri in uris]
        found |= {uri for uri, match in matches if match and match[1] in names}
    return found


def _renamed(staying: pd.DataFrame, groups: set[str], slice_ids: list[str]) -> dict[str, str]:
    """Groups named after a slice that leaves: they take the name of the least that stays."""
    gone = {slice_id[:16] for slice_id in slice_ids}
    rest = staying[staying["group_id"].isin(groups & gone)]
    return {str(name): str(ids.min())[:16] for name, ids in rest.groupby("group_id")["slice_id"]}


def _shards(catalog: Path, manifest: pd.DataFrame, shards: set[str], leaving: set[str]) -> dict[str, dict[str, object]]:
    digests = read_json(catalog / "catalog.json")["shards"]
    found: dict[str, dict[str, object]] = {}
    for shard in sorted(shards):
        ids = manifest.loc[manifest["shard"] == shard, "slice_id"].tolist()
        found[shard] = {
            "digest": digests[shard],
            "kept": [row for row, slice_id in enumerate(ids) if slice_id not in leaving],
        }
    return found
