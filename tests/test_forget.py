"""One patient leaves a run: no byte of theirs is left, everyone else stays, models that learnt from them are named."""

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain, step_named
from filelock import FileLock
from searching import everything_in
from stored import stored_slices
from test_identities import archive
from typer.testing import CliRunner

from scanloop.archive.deidentify import Pseudonyms, read_key
from scanloop.artifacts import check_artifact, read_json, read_table
from scanloop.bundle.read import read_bundle
from scanloop.cli import app
from scanloop.config import IngestConfig
from scanloop.embedding.cache import read_embeddings
from scanloop.embedding.preprocess import preprocess_from
from scanloop.erasure.forget import forget
from scanloop.errors import ArtifactError, ErasureError
from scanloop.provenance import file_digest
from scanloop.sources import FolderSource
from scanloop.steps.ingest import ingest

TABLES_WITH_SLICES = (
    ("catalog", "manifest"), ("catalog", "sources.parquet"), ("embeddings", "index.parquet"),
    ("triage", "clusters.parquet"), ("pseudo_labels", "pseudo_labels.parquet"), ("evaluation", "predictions.parquet"),
)  # fmt: skip


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Path:
    """A copy of a whole run: catalog to promotion, with MLflow's files and the cache of vectors."""
    for name in PLANS:
        chain[name]
    shutil.copytree(chain.folder, tmp_path / "run")
    page = tmp_path / "run" / "report"
    page.mkdir()
    (page / "artifact.json").write_text(json.dumps({"kind": "report", "key": "k", "files": {}}))
    (page / "report.html").write_text("pictures of anyone")
    line = f"quarantined: synthetic/{patient_of(page.parent)}/slice-0000.png"
    (tmp_path / "run" / "run.log").write_text(f"start\n{line}\n")
    return tmp_path / "run"


def patient_of(run: Path) -> str:
    """A patient whose slice is in the reference of the bundle."""
    manifest = read_table(run / "catalog", "manifest")
    known = manifest[manifest["label"].notna() & (manifest["split"] == "train")]
    return str(known["patient_id"].iloc[0])


def left_of(run: Path, patient: str, before: Path) -> list[str]:
    """What a search finds of a patient in a folder, who is known from a copy of it: ids, pixels, vectors."""
    manifest, sources = read_table(before / "catalog", "manifest"), read_table(before / "catalog", "sources.parquet")
    rows = manifest[manifest["patient_id"] == patient]
    ids = {patient, *rows["slice_id"], *rows["sha256"]}
    ids |= set(sources.loc[sources["slice_id"].isin(rows["slice_id"]), "uri"])
    blob, cells = everything_in(run)
    found = [text for text in sorted(ids) if text.encode() in blob or text in cells]
    vectors = read_embeddings(before / "embeddings").of(rows["slice_id"].tolist())
    found += ["a vector" for vector in vectors if vector.tobytes() in blob]
    square = preprocess_from(read_json(before / "bundle" / "preprocess.json")).square
    for slice_id, image in stored_slices(before / "catalog", rows).items():
        row = rows[rows["slice_id"] == slice_id].iloc[0]
        png = (before / "catalog" / "shards" / row["shard"]).read_bytes()[row["offset"] :][: row["length"]]
        found += ["a stored slice"] * (png in blob) + ["a square of a reference"] * (square(image).tobytes() in blob)
    return found


def test_nothing_of_the_patient_is_left_and_everyone_else_is(run: Path, tmp_path: Path) -> None:
    before = shutil.copytree(run, tmp_path / "before")
    patient = patient_of(run)
    assert {"a vector", "a stored slice", "a square of a reference", patient} <= set(left_of(run, patient, before))
    report = forget(run, patient, tmp_path / "key")
    assert left_of(run, patient, before) == []
    assert report["traces_found"] == 0
    manifest, was = read_table(run / "catalog", "manifest"), read_table(before / "catalog", "manifest")
    staying = was[was["patient_id"] != patient]
    assert report["slices"] == len(was) - len(staying) == len(was) - len(manifest) > 0
    assert manifest["slice_id"].tolist() == staying["slice_id"].tolist()
    stored, stored_before = stored_slices(run / "catalog", manifest), stored_slices(before / "catalog", staying)
    assert all(np.array_equal(stored[one], stored_before[one]) for one in staying["slice_id"])
    vectors, vectors_before = read_embeddings(run / "embeddings"), read_embeddings(before / "embeddings")
    np.testing.assert_array_equal(vectors.vectors, vectors_before.of(vectors.slice_ids))
    assert set(vectors.slice_ids) == set(staying["slice_id"])
    for folder, table in TABLES_WITH_SLICES:
        kept = read_table(before / folder, table)
        kept = kept[kept["slice_id"].isin(staying["slice_id"])]
        now = read_table(run / folder, table)
        columns = [name for name in now.columns if name not in {"offset", "group_id", "row"}]
        pd.testing.assert_frame_equal(now[columns], kept[columns].reset_index(drop=True))


def test_the_records_hold_for_what_is_there_now(run: Path, tmp_path: Path) -> None:
    forget(run, patient_of(run), tmp_path / "key")
    for record in run.glob("*/artifact.json"):
        told = read_json(record)
        check_artifact(record.parent, told["kind"])
        for name, file in told["files"].items():
            assert file == {"sha256": file_digest(record.parent / name), "bytes": (record.parent / name).stat().st_size}
    facts, manifest = read_json(run / "catalog" / "catalog.json"), read_table(run / "catalog", "manifest")
    assert facts["slices"] == len(manifest)
    assert facts["shards"] == {path.name: file_digest(path) for path in sorted((run / "catalog" / "shards").iterdir())}
    for bundle in (run / "bundle", run / "baseline"):
        model = read_bundle(bundle)  # checks every digest, and the reference with its black squares
        assert np.isfinite(model.predict([np.zeros((32, 32), np.uint8)])).all()
    assert not (run / "report").exists()
    assert (run / "run.log").read_text() == "start\n"


def test_the_next_run_finds_what_was_bought_and_makes_what_learnt_again(run: Path, tmp_path: Path) -> None:
    patient = patient_of(run)
    report = forget(run, patient, tmp_path / "key")
    models = {entry["model"] for entry in report["must_be_retrained"]}
    assert {"encoder", "baseline", "bundle"} <= models
    assert any(name.startswith("mlartifacts/") for name in models)
    assert set(report["made_again_by_the_next_run"]) == set(PLANS) - {"catalog", "queue", "labels"} | {"report"}
    finished = {name: (run / name / "run.json").stat().st_mtime_ns for name in PLANS}
    for name, (step, config, inputs) in PLANS.items():
        step_named(step)(config, **{one: run / one for one in inputs}, output=run / name)
    again = {name for name in PLANS if (run / name / "run.json").stat().st_mtime_ns != finished[name]}
    assert again == set(PLANS) - {"catalog", "queue", "labels"}
    assert read_json(run / "encoder" / "encoder.json")["slices"] < read_json(run / "catalog" / "catalog.json")["slices"]
    assert patient not in set(read_table(run / "catalog", "manifest")["patient_id"])


def test_the_evidence_names_the_patient_by_a_keyed_hash_alone(run: Path, tmp_path: Path) -> None:
    patient = patient_of(run)
    report = forget(run, patient, tmp_path / "key")
    (stored,) = read_json(run / "forget.json")["erasures"]
    assert stored == report
    names = Pseudonyms(read_key(tmp_path / "key"))
    assert report["patient_hash"] == names.erasure(str(names.patient(patient)))
    text = (run / "forget.json").read_text()
    assert patient not in text
    assert str(names.patient(patient)) not in text
    with pytest.raises(ErasureError, match="no slice and no file of this patient"):
        forget(run, patient, tmp_path / "key")
    other = read_table(run / "catalog", "manifest")["patient_id"].iloc[-1]
    forget(run, str(other), tmp_path / "key")
    assert len(read_json(run / "forget.json")["erasures"]) == 2


class Killed(BaseException):
    """Stands for a kill: no part of the product catches it."""


def files(run: Path) -> dict[str, str]:
    """Digest of every file; of the evidence, without the time."""
    found = {str(path.relative_to(run)): file_digest(path) for path in sorted(run.rglob("*")) if path.is_file()}
    evidence = read_json(run / "forget.json")["erasures"]
    found["forget.json"] = json.dumps([one | {"requested": ""} for one in evidence], sort_keys=True)
    return {name: digest for name, digest in found.items() if not name.endswith((".lock", ".db"))}


def dies_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many renames and removals of files happen, and kill at the next."""
    done = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if Path(str(args[0])).suffix not in {".tmp", ".lock"} or original.__name__ == "replace":
                if done == count:
                    raise Killed
                done += 1
            return original(*args, **kwargs)

        return change

    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "rename"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("stride", [20, pytest.param(1, marks=pytest.mark.integration)])
def test_killed_between_any_two_writes_and_run_again_it_ends_the_same(run: Path, tmp_path: Path, stride: int) -> None:
    patient, original = patient_of(run), shutil.copytree(run, tmp_path / "original")
    forget(run, patient, tmp_path / "key")
    expected, kills, count = files(run), 0, stride // 2
    while True:
        shutil.rmtree(run)
        shutil.copytree(original, run)
        (tmp_path / "key.forgotten").unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            dies_after(count, patch)
            with contextlib.suppress(Killed):
                forget(run, patient, tmp_path / "key")
                break
        kills += 1
        if (run / ".forget.json").exists():
            assert stat.S_IMODE((run / ".forget.json").stat().st_mode) == 0o600
            with pytest.raises(ArtifactError, match="the erasure of a patient was interrupted here"):
                step_named("ingest")(PLANS["catalog"][1], output=run / "catalog")
            (run / ".catalog.error.json").unlink()
        (run / "catalog" / "torn.parquet.1.tmp").write_text(patient)
        forget(run, patient, tmp_path / "key")
        assert files(run) == expected, f"killed at write {count}"
        count += stride
    assert kills > 30 // stride
    assert not (run / ".forget.json").exists()


def test_a_killed_process_leaves_a_folder_that_the_command_finishes(run: Path, tmp_path: Path) -> None:
    patient = patient_of(run)
    before = shutil.copytree(run, tmp_path / "before")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom scanloop.erasure import forget as module\n"
        "module.slices.count_again = lambda *_: os._exit(9)\n"
        "module.forget(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))\n"
    )
    arguments = [sys.executable, "-c", script, str(run), patient, str(tmp_path / "key")]
    assert subprocess.run(arguments, check=False, timeout=120).returncode == 9
    assert (run / ".forget.json").exists()
    options = ["forget", "--patient", patient, "--run", str(run), "--key-file", str(tmp_path / "key")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["runs"][str(run)]["traces_found"] == 0
    assert left_of(run, patient, before) == []


def test_a_run_at_work_is_not_touched(run: Path, tmp_path: Path) -> None:
    before = files_of(run)
    for lock in (".run.lock", ".embeddings.lock"):
        with FileLock(run / lock), pytest.raises(ErasureError, match="a run is at work"):
            forget(run, patient_of(run), tmp_path / "key")
    assert files_of(run) == before


def test_a_dry_run_says_the_same_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    before = files_of(run)
    said = forget(run, patient_of(run), tmp_path / "key", dry_run=True)
    assert files_of(run) == before
    done = forget(run, patient_of(run), tmp_path / "key")
    assert {name for name in done if done[name] != said[name]} <= {"requested", "files_searched"}


def test_traces_that_cannot_be_erased_are_an_error_that_names_their_file(run: Path, tmp_path: Path) -> None:
    patient = patient_of(run)
    (run / "notes.bin").write_text(f"call {patient} back")
    with pytest.raises(ErasureError, match=r"still stands in notes\.bin"):
        forget(run, patient, tmp_path / "key")
    (run / "notes.bin").unlink()
    assert forget(run, patient, tmp_path / "key")["traces_found"] == 0


def test_by_id_or_by_pseudonym_a_hidden_patient_leaves_run_and_map_and_stays_out(tmp_path: Path) -> None:
    source = FolderSource(
        path=str(archive(tmp_path)), key_file=str(tmp_path / "key"), patient_pattern=r"([a-z]+-[a-z]+)_"
    )
    ingest(IngestConfig(source=source), output=tmp_path / "run" / "catalog")
    names = Pseudonyms(read_key(tmp_path / "key"))
    for given, name in (("evans-lucy", "evans-lucy"), (str(names.patient("abel-jane")), "abel-jane")):
        report = forget(tmp_path / "run", given)
        assert report["slices"] == 2
        pseudonym = str(names.patient(name))
        blob, cells = everything_in(tmp_path / "run")
        assert pseudonym.encode() not in blob
        assert pseudonym not in cells
        (map_file,) = tmp_path.glob("key.*.map.csv")
        assert name not in map_file.read_text()
        assert pseudonym in (tmp_path / "key.forgotten").read_text()
    assert "the key's list keeps them out" in report["cannot_be_cleaned_here"][0]
    assert len(read_table(tmp_path / "run" / "catalog", "quarantine.parquet")) == 0  # it was one of evans-lucy's
    ingest(IngestConfig(source=source, shard_slices=3), output=tmp_path / "run" / "catalog")
    manifest = read_table(tmp_path / "run" / "catalog", "manifest")
    assert set(manifest["patient_id"]) == {
        names.patient(one) for one in ("baker-john", "clark-mary", "dover-paul", "foster-tim")
    }


def test_a_group_that_outlives_the_slice_it_was_named_after_gets_another_name(tmp_path: Path) -> None:
    folder = archive(tmp_path)
    shutil.copy(folder / "unlabelled" / "evans-lucy_0.png", folder / "unlabelled" / "foster-tim_9.png")
    options = {"path": str(folder), "deidentify": False, "patient_pattern": r"([a-z]+-[a-z]+)_"}
    ingest(IngestConfig(source=FolderSource(**options)), output=tmp_path / "run" / "catalog")
    manifest = read_table(tmp_path / "run" / "catalog", "manifest")
    group = manifest[manifest["group_id"].map(manifest["group_id"].value_counts()) > 2]
    first = group.sort_values("slice_id").iloc[0]
    forget(tmp_path / "run", str(first["patient_id"]), tmp_path / "key2")
    after = read_table(tmp_path / "run" / "catalog", "manifest")
    left = set(group["slice_id"]) & set(after["slice_id"])
    assert left
    assert set(after.loc[after["slice_id"].isin(left), "group_id"]) == {min(left)[:16]}


def files_of(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): file_digest(path) for path in sorted(run.rglob("*"))
            if path.is_file() and path.suffix != ".lock"}  # fmt: skip
