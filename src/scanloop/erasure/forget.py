"""Erase one patient from a run's folder: planned first, carried out in steps that can be done again, searched last."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scanloop.archive.deidentify import erase_from_map, map_files, read_key, remember_forgotten, write_private
from scanloop.artifacts import read_json, write_json
from scanloop.build import RECORD, UNFINISHED_ERASURE
from scanloop.build import read_key as read_artifact_key
from scanloop.erasure import models, records, slices
from scanloop.erasure.index import build_again
from scanloop.erasure.leftovers import holds, leftovers, name_of, remove_leftovers
from scanloop.erasure.reach import HIDDEN, hidden_without, out_of_reach, own_key_file
from scanloop.erasure.search import rows_too_many, traces
from scanloop.erasure.subject import Subject, find_subject
from scanloop.erasure.texts import ERASERS, erase_from
from scanloop.errors import ErasureError
from scanloop.triage.neighbours import FACTS

REPORT = "forget.json"
PAGES = frozenset({"report", "validation", "drift"})
"""Kinds whose pages show pictures and examples of slices."""
LEFT_OUT = (UNFINISHED_ERASURE, REPORT)


@dataclass(frozen=True)
class Plan:
    """All that must be known of an erasure before its first file is written; kept in the folder until it is done.

    Attributes:
        subject: The patient.
        requested: When the erasure was first asked for, ISO 8601.
        catalog_key: Key of the catalog before it.
        squares: Digests of the patient's slices as bundles hold them.
        must_be_retrained: Models that learnt from the patient, and why.
        made_again: Artifacts that the next run makes again.
        cannot_be_cleaned_here: What the erasure does not reach.
        unfinished: Folders of killed steps, which go as a whole.
        hidden: What `deidentification.json` will say; empty where there is none.
    """

    subject: Subject
    requested: str
    catalog_key: str
    squares: list[str] = field(default_factory=list)
    must_be_retrained: list[dict[str, str]] = field(default_factory=list)
    made_again: list[str] = field(default_factory=list)
    cannot_be_cleaned_here: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    hidden: dict[str, Any] = field(default_factory=dict)


def forget(run: Path, patient: str, key_file: Path | None = None, *, dry_run: bool = False) -> dict[str, Any]:
    """Erase a patient from every file of a run's folder, and from the private map beside the key.

    An erasure that was interrupted is finished first. No weight is changed: the report lists what must be retrained,
    and the next run makes again whatever was computed with the patient.

    Args:
        run: Folder of the run.
        patient: Id as the source gives it, or pseudonym.
        key_file: Secret of the pseudonyms; the catalog's own where it was de-identified and none is given.
        dry_run: Say what would be done, and write nothing.

    Returns:
        What was done, as `forget.json` tells it: counts and a keyed hash, and nothing that names the patient.

    Raises:
        ErasureError: A run is at work in the folder, the patient is not in it, no key is named, or traces are left.
        ArtifactError: The folder holds no catalog.
    """
    _require_run(run)
    key_path = key_file or own_key_file(run)
    key = read_key(key_path)
    with _alone(run):
        if (run / UNFINISHED_ERASURE).exists() and not dry_run:
            earlier = _read_plan(run)
            report = _carry_out(run, earlier, key_path)
            if patient in earlier.subject.names:
                return report
        plan = _plan(run, patient, key, key_path)
        if not plan.subject.is_known and not holds(run, plan.subject):
            raise ErasureError(
                f"{run}: no slice and no file of this patient is here; check the id and the key file",
                patient_is_absent=True,
            )
        if dry_run:
            return _report(run, plan, {})
        write_private(run / UNFINISHED_ERASURE, json.dumps(asdict(plan)).encode())
        return _carry_out(run, plan, key_path)


def _require_run(run: Path) -> None:
    if (run / "catalog" / RECORD).exists() or (run / UNFINISHED_ERASURE).exists():
        return
    if not leftovers(run):
        raise ErasureError(f"{run}: no catalog here; name the folder of a run")
    if records.artifacts_in(run):
        raise ErasureError(f"{run}: a run was killed while it put its catalog in place; run it again, then forget")


def _plan(run: Path, patient: str, key: bytes, key_file: Path) -> Plan:
    subject, catalog = find_subject(run, patient, key, key_file), run / "catalog"
    requested = datetime.now(UTC).isoformat(timespec="seconds")
    unfinished = [name_of(path) for path in leftovers(run)]
    if not catalog.exists():
        return Plan(subject, requested, "", unfinished=unfinished)
    return Plan(
        subject,
        requested,
        read_artifact_key(catalog),
        models.reference_digests(run, subject.slice_ids),
        models.learnt_from(run, subject.slice_ids),
        records.made_again(run),
        out_of_reach(run, subject),
        unfinished,
        hidden_without(catalog, subject),
    )


def _read_plan(run: Path) -> Plan:
    tree = json.loads((run / UNFINISHED_ERASURE).read_text())
    told: dict[str, Any] = tree["subject"]
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Plan(**(tree | {"subject": Subject(**values)}))


def _carry_out(run: Path, plan: Plan, key_file: Path) -> dict[str, Any]:
    """Every step leaves what was done already as it is, so that all of them can be done again after a kill."""
    subject, catalog = plan.subject, run / "catalog"
    remember_forgotten(key_file, subject.pseudonym)
    remove_leftovers(run)
    if catalog.exists() and subject.is_known:
        _erase(run, plan)
    for path in map_files(key_file):
        erase_from_map(path, subject.pseudonym, frozenset(subject.uris))
    left = traces(_files(run), subject)
    for artifact in records.artifacts_in(run):
        left |= rows_too_many(artifact, records.inputs_of(artifact).get("embeddings"), catalog)
    report = _report(run, plan, left)
    _write_report(run, report)
    if left:
        named = ", ".join(str(path.relative_to(run)) for path in sorted(left)[:5])
        raise ErasureError(f"{run}: the patient still stands in {named}; remove these files and run forget again")
    (run / UNFINISHED_ERASURE).unlink(missing_ok=True)
    return report


def _erase(run: Path, plan: Plan) -> None:
    subject, catalog = plan.subject, run / "catalog"
    slices.erase_slices(catalog, subject)
    artifacts = records.artifacts_in(run)
    for artifact in artifacts:
        if (artifact / "index.parquet").exists():
            slices.erase_vectors(artifact, catalog, subject)
    for artifact in artifacts:
        if (artifact / FACTS).exists():
            build_again(artifact, records.inputs_of(artifact).get("embeddings"))
    if (run / slices.CACHE).is_dir():
        slices.erase_cached_vectors(run / slices.CACHE, catalog, subject)
    _remove_pages(run)
    for path in _files(run):
        if path.suffix in ERASERS:
            erase_from(path, subject)
    if plan.hidden:
        write_json(catalog / HIDDEN, plan.hidden)
    facts = slices.count_again(catalog, subject)
    for bundle in models.bundles(run):
        models.erase_from_bundle(bundle, frozenset(plan.squares))
        models.erase_vectors(bundle, subject.slice_ids)
        models.seal_again(bundle)
    for artifact in records.artifacts_in(run):
        records.describe_again(artifact)
    records.hand_on_another_key(catalog, plan.catalog_key, subject.patient_hash, facts)
    records.keep_what_was_bought(run)


def _report(run: Path, plan: Plan, left: dict[Path, int]) -> dict[str, Any]:
    subject = plan.subject
    return {
        "patient_hash": subject.patient_hash,
        "requested": plan.requested,
        "slices": len(subject.slice_ids),
        "uris": len(subject.uris),
        "shards": len(subject.shards),
        "files_searched": sum(1 for _ in _files(run)),
        "traces_found": sum(left.values()),
        "must_be_retrained": plan.must_be_retrained,
        "made_again_by_the_next_run": plan.made_again,
        "unfinished_and_removed": plan.unfinished,
        "cannot_be_cleaned_here": plan.cannot_be_cleaned_here,
    }


def _write_report(run: Path, report: dict[str, Any]) -> None:
    """Add an erasure to the folder's evidence; one that was interrupted stands in it once."""
    path = run / REPORT
    earlier = read_json(path)["erasures"] if path.exists() else []
    kept = [one for one in earlier if one["patient_hash"] != report["patient_hash"]]
    write_json(path, {"erasures": [*kept, report]})


def _remove_pages(run: Path) -> None:
    """What a page shows of a patient no search can tell: these artifacts go, and are made again."""
    for artifact in records.artifacts_in(run):
        if read_json(artifact / RECORD).get("kind") in PAGES:
            retired = artifact.with_name(f".{artifact.name}.retired")  # whole or gone, whenever this is killed
            artifact.rename(retired)
            shutil.rmtree(retired)


def _files(run: Path) -> Iterator[Path]:
    """Every file of a folder, but for locks, the plan and the evidence of erasures."""
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.suffix != ".lock" and path.parent / path.name not in {run / one for one in LEFT_OUT}:
            yield path


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep runs and single steps out of the folder."""
    steps = {path.name for path in records.artifacts_in(run)} | {name_of(path) for path in leftovers(run)}
    names = [".run.lock", *(f".{name}.lock" for name in sorted(steps))]
    with ExitStack() as held:
        for name in names:
            lock = FileLock(run / name)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise ErasureError(
                    f"a run is at work in {run}; wait until it ends, or end it, and try again"
                ) from error
            held.callback(lock.release)
        yield
