"""Erasure from what stands on vectors and labels: search index, near-duplicates, and what bundles say they learnt."""

import shutil
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest
from chain import Chain

from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.build import read_key
from scanloop.bundle.read import read_bundle, read_learnt
from scanloop.embedding.cache import read_embeddings, stored_vectors
from scanloop.erasure.forget import forget
from scanloop.erasure.search import rows_too_many
from scanloop.search_command import Query, nearest
from scanloop.triage.near import unit
from scanloop.triage.neighbours import build_index


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Path:
    """A copy of a run as far as its models."""
    for name in ("bundle", "baseline"):
        chain[name]
    shutil.copytree(chain.folder, tmp_path / "run")
    return tmp_path / "run"


def patient_of(run: Path) -> tuple[str, list[str]]:
    """A patient whose labelled slice was learnt from, and all their slices."""
    manifest = read_table(run / "catalog", "manifest")
    known = manifest[manifest["label"].notna() & (manifest["split"] == "train")]
    patient = str(known["patient_id"].iloc[0])
    return patient, manifest.loc[manifest["patient_id"] == patient, "slice_id"].tolist()


@pytest.mark.parametrize("exact_most", [10_000, 10])
def test_the_search_index_holds_the_others_alone_and_answers_at_once(
    run: Path, tmp_path: Path, exact_most: int
) -> None:
    stored = stored_vectors(run / "embeddings")
    record = read_json(run / "triage" / "artifact.json")
    if exact_most < 100:  # an approximate index, with centres that were trained on the patient too
        ids = read_embeddings(run / "embeddings").slice_ids
        build_index(run / "triage", stored, ids, stored.dimension, exact_most, 3)
        record["config"]["exact_search_slices"] = exact_most
        write_json(run / "triage" / "artifact.json", record)
    patient, theirs = patient_of(run)
    everything = read_embeddings(run / "embeddings")
    queries = everything.of(theirs)
    before = nearest(run, Query(queries[:1], None), 500)
    assert set(theirs) & set(before["slice_id"])
    forget(run, patient, tmp_path / "key")
    left = [one for one in everything.slice_ids if one not in theirs]
    places = np.concatenate([ids_in(path, exact_most >= 100) for path in (run / "triage" / "neighbours").iterdir()])
    assert sorted(places.tolist()) == list(range(len(left)))
    blob = b"".join(path.read_bytes() for path in (run / "triage" / "neighbours").iterdir())
    assert not [one for one in unit(queries) if one.tobytes() in blob]
    found = nearest(run, Query(queries[:1], None), 500)
    assert not set(theirs) & set(found["slice_id"])
    if exact_most >= 100:
        cosines = unit(everything.of(left)) @ unit(queries[:1])[0]
        assert set(found["slice_id"][:5]) == {left[row] for row in np.argsort(-cosines)[:5]}
        assert len(found) == len(left)


def ids_in(path: Path, is_exact: bool) -> np.ndarray:
    """Numbers of the rows of a part, as FAISS itself lists them."""
    index = faiss.read_index(str(path))
    if is_exact:
        return faiss.vector_to_array(index.id_map)
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    return np.concatenate(parts)


def test_an_index_that_kept_a_row_is_a_trace(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run / "triage", tmp_path / "old")
    cached = next((run / "embeddings").rglob("*.safetensors"))
    forget(run, patient_of(run)[0], tmp_path / "key")
    embeddings, catalog = run / "embeddings", run / "catalog"
    assert rows_too_many(run / "triage", embeddings, catalog) == {}
    assert rows_too_many(embeddings, None, catalog) == {}
    shutil.rmtree(run / "triage")
    old.rename(run / "triage")
    assert list(rows_too_many(run / "triage", embeddings, catalog)) == [run / "triage" / "neighbours.json"]
    shutil.copy(next(embeddings.rglob("*.safetensors")), stray := cached.with_name("stray.safetensors"))
    assert list(rows_too_many(embeddings, None, catalog)) == [stray]


def test_pairs_of_near_duplicates_leave_with_either_side(run: Path, tmp_path: Path) -> None:
    patient, theirs = patient_of(run)
    others = [one for one in read_embeddings(run / "embeddings").slice_ids if one not in theirs]
    pairs = [(theirs[0], others[0]), (others[1], theirs[0]), (others[2], others[3])]
    rows = [(*pair, 0.99, "near a labelled image") for pair in pairs]
    write_table(
        run / "triage", "pushed_out.parquet", pd.DataFrame(rows, columns=["slice_id", "near", "cosine", "reason"])
    )
    forget(run, patient, tmp_path / "key")
    table = read_table(run / "triage", "pushed_out.parquet")
    assert list(zip(table["slice_id"], table["near"], strict=True)) == [pairs[2]]


def test_bundles_are_sealed_again_and_say_how_many_of_what_they_learnt_left(run: Path, tmp_path: Path) -> None:
    before = {name: read_learnt(run / name) for name in ("bundle", "baseline")}
    counts = {name: read_json(run / name / "bundle.json")["counts"] for name in before}
    patient, theirs = patient_of(run)
    forget(run, patient, tmp_path / "key")
    for name, learnt in before.items():
        after, about = read_learnt(run / name), read_bundle(run / name).about
        kept = learnt[~learnt["slice_id"].isin(theirs)]
        assert after["slice_id"].tolist() == kept["slice_id"].tolist()
        assert len(after) < len(learnt)
        gone = learnt[learnt["slice_id"].isin(theirs)]["source"].value_counts().to_dict()
        assert {source: count for source, count in about["erased"].items() if count} == gone
        assert about["counts"] == counts[name]
    proven_manifest(run / "catalog")
    assert read_key(run / "catalog") != read_json(run / "catalog" / "artifact.json")["made_under"]


def test_vectors_of_the_patient_leave_what_a_bundle_compares_with(run: Path, tmp_path: Path) -> None:
    patient, theirs = patient_of(run)
    before = {name: read_bundle(run / name) for name in ("bundle", "baseline")}
    forget(run, patient, tmp_path / "key")
    for name, model in before.items():
        after = read_bundle(run / name)
        for was, now in ((model.exemplars, after.exemplars), (model.abstention.familiar, after.abstention.familiar)):
            kept = ~np.isin(was.slice_ids, theirs)
            np.testing.assert_array_equal(now.slice_ids, was.slice_ids[kept])
            np.testing.assert_array_equal(now.vectors, was.vectors[kept])
        assert len(after.exemplars.slice_ids) < len(model.exemplars.slice_ids)
        assert after.abstention.threshold == model.abstention.without(theirs).threshold
