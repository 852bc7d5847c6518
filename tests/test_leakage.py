"""Leakage: the manifest, the lists beside it and what a model says it learnt from are held against one another."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain
from hypothesis import given, settings
from hypothesis import strategies as st
from split_files import split_names, write_split_lists
from tiny_bundle import reseal

from scanloop.archive.splits import (
    LISTED,
    SPLITS,
    assert_learnt_from_train,
    group_ids,
    list_name,
    proven_manifest,
)
from scanloop.artifacts import KINDS, read_table, write_table
from scanloop.bundle.read import read_learnt
from scanloop.errors import ArtifactError, BundleError, LeakageError
from scanloop.steps.promote import promote
from scanloop.steps.pseudo_label import pseudo_label
from scanloop.steps.retrain import retrain

chains = st.integers(2, 40).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(*[st.integers(0, count - 1)] * 2), max_size=60),
        st.lists(st.sampled_from(["cancer", "normal", None]), min_size=count, max_size=count),
        st.lists(st.sampled_from([*SPLITS, None, None]), min_size=count, max_size=count),
        st.floats(0, 0.6),
        st.floats(0, 0.4),
        st.integers(0, 5),
    )
)


def rows(**columns: list) -> pd.DataFrame:
    plain = {
        "slice_id": ["a", "b", "c", "d"],
        "group_id": ["g1", "g1", "g2", "g3"],
        "patient_id": ["p1", None, "p1", "p2"],
        "site": ["lyon", None, "paris", None],
        "split": ["train", "train", "validation", "test"],
    }
    return pd.DataFrame(plain | columns, dtype=object)


def new_catalog(folder: Path, **columns: list) -> Path:
    write_table(folder, "manifest", rows(**columns))
    write_split_lists(folder, rows(**columns))
    return folder


@settings(deadline=None)
@given(chains)
def test_whatever_chain_of_links_joins_two_slices_one_split_holds_both(drawn: tuple) -> None:
    count, links, labels, given_splits, validation, test, seed = drawn
    ids = np.array([int(hashlib.sha256(str(row).encode()).hexdigest()[:16], 16) for row in range(count)], np.uint64)
    groups = group_ids(ids, np.array(links, np.int64).reshape(-1, 2))
    splits = split_names(groups, labels, given_splits, validation_share=validation, test_share=test, seed=seed)
    for left, right in links:
        assert splits[left] == splits[right]
    reached = {0}  # walked link by link, without the groups
    for _ in range(count):
        reached |= {other for link in links for other in link if set(link) & reached}
    assert len({splits[row] for row in reached}) == 1


def test_the_lists_hold_each_group_and_patient_once_sorted(chain: Chain) -> None:
    manifest = read_table(chain["catalog"], "manifest")
    for split in SPLITS:
        part = manifest[manifest["split"] == split]
        groups = (chain["catalog"] / f"{split}_groups.txt").read_text().splitlines()
        assert groups == sorted(set(part["group_id"]))
        patients = (chain["catalog"] / f"{split}_patients.txt").read_text().splitlines()
        assert patients == sorted(set(part["patient_id"].dropna()))
    assert len((chain["catalog"] / "test_patients.txt").read_text().splitlines()) > 2
    assert {list_name(split, kind) for split in SPLITS for kind in LISTED} < set(KINDS["catalog"])


def test_patients_are_listed_with_their_site_and_one_a_line(tmp_path: Path) -> None:
    new_catalog(tmp_path, patient_id=["p1", None, "p1", "two\nlines"])
    texts = [(tmp_path / list_name(split, "patients")).read_text() for split in SPLITS]
    assert texts == ["lyon/p1\n", "paris/p1\n", "two\\nlines\n"]
    assert proven_manifest(tmp_path)["slice_id"].tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train_groups.txt", lambda text: text + "g3\n", "train_groups.txt and test_groups.txt both hold g3"),
        ("test_groups.txt", lambda text: "", "test_groups.txt and the manifest disagree on g3"),
        ("validation_groups.txt", lambda text: text + "g9\n", "disagree on g9"),
        ("test_patients.txt", lambda text: text + "lyon/p1\n", "both hold lyon/p1"),
        ("train_patients.txt", lambda text: "", "train_patients.txt and the manifest disagree on lyon/p1"),
    ],
)
def test_a_changed_list_is_refused_and_named(
    tmp_path: Path, file: str, change: Callable[[str], str], words: str
) -> None:
    path = new_catalog(tmp_path) / file
    path.write_text(change(path.read_text()))
    with pytest.raises(LeakageError, match=words):
        proven_manifest(tmp_path)


def test_a_changed_manifest_is_refused_even_if_it_leaks_nothing_by_itself(tmp_path: Path) -> None:
    write_table(new_catalog(tmp_path), "manifest", rows(split=["train", "train", "validation", "train"]))
    with pytest.raises(LeakageError, match=r"train_groups\.txt and the manifest disagree on g3"):
        proven_manifest(tmp_path)
    write_table(tmp_path, "manifest", rows(split=["train", "train", "validation", "Test"]))
    with pytest.raises(LeakageError, match="no split 'Test'"):
        proven_manifest(tmp_path)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    (new_catalog(tmp_path) / "test_groups.txt").unlink()
    with pytest.raises(ArtifactError, match=r"test_groups\.txt is missing"):
        proven_manifest(tmp_path)


def test_learning_from_the_training_part_alone_is_let_through() -> None:
    assert_learnt_from_train(rows(), ["a", "b", "a"], "a model")
    for slice_id in ("c", "d"):
        with pytest.raises(LeakageError, match=f"a model learns from slice {slice_id} of group g"):
            assert_learnt_from_train(rows(), ["a", slice_id], "a model")
    with pytest.raises(LeakageError, match=r"1 slice\(s\) that the catalog does not hold"):
        assert_learnt_from_train(rows(), ["a", "z"], "a model")
    with pytest.raises(LeakageError, match="slice a of group g1"):  # its group stands in the hold-out
        assert_learnt_from_train(rows(split=["train", "test", "validation", "test"]), ["a"], "a model")


def tampered(chain: Chain, folder: Path) -> Path:
    """A catalog in which a held-out group has been moved to the training part, in the manifest alone."""
    catalog = shutil.copytree(chain["catalog"], folder / "catalog")
    manifest = read_table(catalog, "manifest")
    moved = manifest.loc[manifest["split"] == "test", "group_id"].iloc[0]
    write_table(
        catalog, "manifest", manifest.assign(split=manifest["split"].mask(manifest["group_id"] == moved, "train"))
    )
    return catalog


def test_before_training_a_changed_manifest_stops_both_steps_that_learn(chain: Chain, tmp_path: Path) -> None:
    catalog, given_ = tampered(chain, tmp_path), chain.inputs("embeddings", "triage", "labels")
    with pytest.raises(LeakageError, match="disagree"):
        pseudo_label(PLANS["pseudo_labels"][1], catalog=catalog, **given_, output=tmp_path / "pseudo_labels")
    with pytest.raises(LeakageError, match="disagree"):
        retrain(PLANS["bundle"][1], catalog=catalog, encoder=chain["encoder"], **given_, output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_held_out_slice_among_the_promoted_ones_is_not_trained_on(chain: Chain, tmp_path: Path) -> None:
    folder = shutil.copytree(chain["pseudo_labels"], tmp_path / "pseudo_labels")
    table, manifest = read_table(folder, "pseudo_labels.parquet"), read_table(chain["catalog"], "manifest")
    held_out = manifest.loc[manifest["split"] == "test", "slice_id"].iloc[0]
    forged = table["slice_id"] == held_out
    table.loc[forged, ["promoted", "label", "knn_label", "weight"]] = [True, "lesion", "lesion", 0.5]
    table["soft"] = [[1.0, 0.0] if one else soft for one, soft in zip(forged, table["soft"], strict=True)]
    write_table(folder, "pseudo_labels.parquet", table)
    inputs = chain.inputs("catalog", "encoder", "embeddings", "triage", "labels")
    with pytest.raises(LeakageError, match=f"retrain learns from slice {held_out}"):
        retrain(PLANS["bundle"][1], **inputs, pseudo_labels=folder, output=tmp_path / "bundle")


def test_a_bundle_names_every_slice_that_it_learnt_from(chain: Chain) -> None:
    learnt = read_learnt(chain["bundle"])
    taught = read_table(chain["pseudo_labels"], "pseudo_labels.parquet").query("weight > 0")["slice_id"]
    manifest, bought = read_table(chain["catalog"], "manifest"), read_table(chain["labels"], "labels.parquet")
    given_ = manifest[(manifest["split"] == "train") & manifest["label"].notna()]["slice_id"]
    by_source = learnt.groupby("source")["slice_id"].agg(set)
    assert by_source["pseudo_labelled"] == set(taught)
    assert by_source["labelled"] == set(given_) | set(bought["slice_id"])
    assert set(read_learnt(chain["baseline"])["source"]) == {"labelled"}


def promoted(chain: Chain, folder: Path, bundle: Path, catalog: Path | None = None) -> None:
    promote(
        PLANS["promotion"][1],
        catalog=catalog or chain["catalog"],
        bundle=bundle,
        evaluation=chain["evaluation"],
        output=folder / "promotion",
    )


def test_before_promotion_a_changed_manifest_or_list_is_refused(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="disagree"):
        promoted(chain, tmp_path, chain["bundle"], tampered(chain, tmp_path))
    catalog = shutil.copytree(chain["catalog"], tmp_path / "another")
    first = (catalog / "test_groups.txt").read_text().splitlines()[0]
    with (catalog / "train_groups.txt").open("a") as file:
        file.write(f"{first}\n")
    with pytest.raises(LeakageError, match=f"both hold {first}") as caught:
        promoted(chain, tmp_path, chain["bundle"], catalog)
    assert caught.value.exit_code == 5
    assert not (tmp_path / "promotion").exists()


def test_before_promotion_a_bundle_that_learnt_from_the_hold_out_is_refused(chain: Chain, tmp_path: Path) -> None:
    bundle = shutil.copytree(chain["bundle"], tmp_path / "bundle")
    learnt, manifest = read_table(bundle, "learnt.parquet"), read_table(chain["catalog"], "manifest")
    held_out = manifest[manifest["split"] == "test"].iloc[0]
    forged = learnt.copy()
    forged.loc[len(forged) - 1, "slice_id"] = held_out["slice_id"]
    write_table(bundle, "learnt.parquet", forged)
    with pytest.raises(BundleError, match=r"learnt\.parquet is not the file"):
        promoted(chain, tmp_path, bundle)
    reseal(bundle)
    with pytest.raises(LeakageError, match=f"learns from slice {held_out['slice_id']}"):
        promoted(chain, tmp_path, bundle)
    forged = learnt.copy()
    forged.loc[len(forged) - 1, "group_id"] = held_out["group_id"]
    write_table(bundle, "learnt.parquet", forged)
    reseal(bundle)
    with pytest.raises(LeakageError, match=f"learnt from group {held_out['group_id']}"):
        promoted(chain, tmp_path, bundle)


def test_a_bundle_that_leaves_out_what_it_learnt_from_is_refused(chain: Chain, tmp_path: Path) -> None:
    bundle = shutil.copytree(chain["bundle"], tmp_path / "bundle")
    learnt = read_table(bundle, "learnt.parquet")
    write_table(bundle, "learnt.parquet", learnt.iloc[:-1])
    reseal(bundle)
    with pytest.raises(BundleError, match=r"names \d+ pseudo_labelled slices, bundle.json counts"):
        promoted(chain, tmp_path, bundle)
    swapped = learnt.assign(slice_id=learnt["slice_id"].mask(learnt.index == 0, learnt["slice_id"].iloc[-1]))
    write_table(bundle, "learnt.parquet", swapped)
    reseal(bundle)
    with pytest.raises(BundleError, match=r"leaves out .*, which was cross-validated"):
        promoted(chain, tmp_path, bundle)
