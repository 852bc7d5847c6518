"""Near-duplicates in embedding space: the threshold keeps its promise; what is pushed out has no part in anything."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain
from hypothesis import given, settings
from hypothesis import strategies as st

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.config import AcquireConfig, EmbedConfig, FolderSource, IngestConfig, PretrainConfig, TriageConfig
from scanloop.steps.acquire import acquire
from scanloop.steps.embed import embed
from scanloop.steps.ingest import ingest
from scanloop.steps.pretrain import pretrain
from scanloop.steps.pseudo_label import pseudo_label
from scanloop.steps.retrain import retrain
from scanloop.steps.triage import triage
from scanloop.triage.near import REASONS, References, known_pairs, pushed_out, threshold, unit

NONE = np.empty(0)


def cloud(n: int, d: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(1, 200), st.floats(0, 1), st.integers(0, 99))
def test_the_threshold_is_the_least_cosine_that_keeps_to_the_rate(
    n: int, references: int, rate: float, seed: int
) -> None:
    sample, groups = unit(cloud(n, 6, seed)), np.arange(n) // 2
    found = threshold(sample, groups, NONE, references, rate)
    pairs = sorted(
        float(np.float32(sample[i] @ sample[j])) for i in range(n) for j in range(i) if groups[i] != groups[j]
    )
    assert found.pairs == len(pairs)
    if pairs:
        reached = [value for value in pairs if value >= found.cosine - 1e-6]
        assert len(reached) <= rate / references * len(pairs) + 2
        lower = [value for value in pairs if value >= found.cosine - 1e-5]
        assert len(lower) + 1 >= rate / references * len(pairs) or not lower
        assert found.expected <= rate + 1e-12
        assert found.expected_high >= found.expected


def test_unrelated_images_are_pushed_out_no_more_often_than_the_rate_says() -> None:
    sample, references, pool = unit(cloud(3000)), unit(cloud(40, seed=1)), cloud(20_000, seed=2)
    found = threshold(sample, np.arange(3000), NONE, 40, 0.02)
    table = pushed_out(
        [(np.arange(20_000), pool.astype(np.float16))],
        [str(row) for row in range(20_000)],
        References(np.arange(40).astype(str).astype(object), references, np.full(40, "labelled", dtype=object)),
        found.cosine,
    )
    assert 0.005 < len(table) / 20_000 < 0.025


def test_too_few_pairs_to_tell_the_rate_put_the_threshold_above_them_all() -> None:
    sample = unit(cloud(30))
    found = threshold(sample, np.arange(30), np.array([1.0, 0.2]), 10_000, 0.01)
    assert found.cosine > (sample @ sample.T)[np.triu_indices(30, 1)].max()
    assert (found.exceeding, found.known, found.found) == (0, 2, 1)
    assert found.expected_high == 1  # nothing is promised of so many references
    assert threshold(sample[:1], np.arange(1), NONE, 5, 0.5).cosine > 1


def test_each_near_image_is_found_with_its_neighbour_and_a_held_out_one_is_told_first() -> None:
    references = unit(cloud(4, 8))
    pool = np.concatenate([references[[2, 0]], cloud(50, 8, seed=5)]).astype(np.float16)
    pool[1] = (references[0] + 0.05 * references[3]).astype(np.float16)
    pool[30] = 0
    order = np.random.default_rng(0).permutation(52)
    parts = [(order[:20], pool[order[:20]]), (order[20:], pool[order[20:]])]
    kinds = np.array(["held_out", "labelled", "labelled", "labelled"], dtype=object)
    ids = np.array(["t0", "l1", "l2", "l3"], dtype=object)
    table = pushed_out(parts, [f"p{row}" for row in range(52)], References(ids, references, kinds), 0.97)
    plain = unit(pool) @ references.T
    expected = [row for row in range(52) if plain[row].max() >= 0.97]
    assert table["slice_id"].tolist() == [f"p{row}" for row in expected]
    first = table.set_index("slice_id")
    assert first.loc["p0", ["near", "reason"]].tolist() == ["l2", REASONS["labelled"]]
    assert first.loc["p1", ["near", "reason"]].tolist() == ["t0", REASONS["held_out"]]
    assert first.loc["p0", "cosine"] == pytest.approx(1, abs=1e-3)


def test_known_pairs_are_those_of_one_group_with_hashes_that_differ_little() -> None:
    manifest = pd.DataFrame({
        "group_id": ["a", "b", "a", "a", "b", "c"],
        "phash": [f"{value:016x}" for value in (0, 0, 0b111, 2**64 - 1, 2**40 - 1, 0)],
    })  # fmt: skip
    assert known_pairs(manifest, 8, seed=0).tolist() == [[0, 2]]
    assert known_pairs(manifest, 2, seed=0).tolist() == []


@pytest.fixture(scope="module")
def pushed(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The chain's triage with ten pool images pushed out that were promoted, and with two that were bought."""
    folder = shutil.copytree(chain["triage"], tmp_path_factory.mktemp("pushed") / "triage")
    table = read_table(chain["pseudo_labels"], "pseudo_labels.parquet")
    chosen = [
        *table[table["promoted"]]["slice_id"].unique()[:10],
        *read_table(chain["labels"], "labels.parquet")["slice_id"][:2],
    ]
    rows = {"slice_id": chosen, "near": "x" * 64, "cosine": 0.99, "reason": REASONS["held_out"]}
    write_table(folder, "pushed_out.parquet", pd.DataFrame(rows))
    write_json(folder / "artifact.json", read_json(folder / "artifact.json") | {"key": "pushed"})
    return folder, set(chosen)


def test_an_image_pushed_out_is_never_queued(chain: Chain, pushed: tuple[Path, set[str]], tmp_path: Path) -> None:
    config, (folder, chosen) = AcquireConfig(budget_eur=1e6), pushed
    for labels in ({}, chain.inputs("labels")):
        output = tmp_path / f"queue{len(labels)}"
        acquire(config, **chain.inputs("catalog", "embeddings"), triage=folder, **labels, output=output)
        queued = set(read_table(output, "queue.parquet")["slice_id"])
        assert queued
        assert not queued & chosen


def test_an_image_pushed_out_is_never_promoted_and_never_learnt_from(
    chain: Chain, pushed: tuple[Path, set[str]], tmp_path: Path
) -> None:
    folder, chosen = pushed
    inputs = chain.inputs("catalog", "embeddings", "labels") | {"triage": folder}
    pseudo_label(PLANS["pseudo_labels"][1], **inputs, output=tmp_path / "pseudo_labels")
    table = read_table(tmp_path / "pseudo_labels", "pseudo_labels.parquet")
    mine = table[table["slice_id"].isin(chosen)]
    assert set(mine["slice_id"]) == chosen
    assert not mine["promoted"].any()
    assert mine["knn_label"].isna().all()
    assert set(mine["reason"]) == {"pushed out: near a held-out image"}
    assert read_json(tmp_path / "pseudo_labels" / "certificate.json")["pushed_out"] == len(chosen)
    for name, pseudo in (("new", tmp_path / "pseudo_labels"), ("old", chain["pseudo_labels"])):  # old: promotes ten
        retrain(PLANS["bundle"][1], **inputs, encoder=chain["encoder"], pseudo_labels=pseudo, output=tmp_path / name)
        learnt = set(read_table(tmp_path / name, "learnt.parquet")["slice_id"])
        scored = set(read_table(tmp_path / name, "out_of_fold.parquet")["slice_id"])
        assert learnt
        assert not (learnt | scored) & chosen


def test_the_summary_counts_what_the_table_holds(chain: Chain) -> None:
    table, facts = read_table(chain["triage"], "pushed_out.parquet"), read_json(chain["triage"] / "triage.json")
    manifest = read_table(chain["catalog"], "manifest").set_index("slice_id")
    assert facts["pushed_out"]["images"] == len(table) == chain.summary("triage").pushed_out
    pool = manifest.loc[table["slice_id"]]
    assert (pool["split"] == "train").all()
    assert pool["label"].isna().all()
    references = manifest[(manifest["split"] != "train") | manifest["label"].notna()]
    assert facts["pushed_out"]["threshold"]["references"] == len(references)
    assert set(table["near"]) <= set(references.index)


@pytest.fixture(scope="module")
def brain(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalog, embeddings and triage of the real brain archive."""
    folder = tmp_path_factory.mktemp("brain")
    source = FolderSource(
        path=str(data_dir / "brain_mri_oc.tar"), labelled_dir="avec_labels", unlabelled_dir="sans_label"
    )
    ingest(IngestConfig(source=source, positive_class="cancer", short_side_px=128), output=folder / "catalog")
    weights = str(data_dir / "weights" / "SqueezeNet_fp16.onnx")
    config = PretrainConfig(encoder="squeezenet1_1", method="none", weights=weights, input_px=96)
    pretrain(config, catalog=folder / "catalog", output=folder / "encoder")
    made = {name: folder / name for name in ("catalog", "encoder")}

    embed(EmbedConfig(), **made, output=folder / "embeddings")
    inputs = {name: folder / name for name in ("catalog", "embeddings")}
    triage(TriageConfig(k_max=3), **inputs, output=folder / "triage")
    return folder


def test_the_31_labelled_brain_images_with_copies_in_the_pool_are_reported_and_never_queued(
    brain: Path, tmp_path: Path
) -> None:
    facts = read_json(brain / "triage" / "triage.json")["pushed_out"]
    assert facts["labelled_with_copies_in_pool"] == 31
    manifest, sources = read_table(brain / "catalog", "manifest"), read_table(brain / "catalog", "sources.parquet")
    labelled = set(manifest.loc[manifest["label"].notna(), "slice_id"])
    copies = sources[sources["slice_id"].isin(labelled) & sources["uri"].str.contains("sans_label")]
    assert copies["slice_id"].nunique() == 31
    inputs = {name: brain / name for name in ("catalog", "embeddings", "triage")}
    acquire(AcquireConfig(budget_eur=1e6), **inputs, output=tmp_path / "queue")
    queued = set(read_table(tmp_path / "queue", "queue.parquet")["slice_id"])
    pushed = set(read_table(brain / "triage", "pushed_out.parquet")["slice_id"])
    assert len(queued) > 1000
    assert not queued & labelled
    assert not queued & pushed
    assert 5 <= len(pushed) <= 60
    assert len(pushed) == facts["images"]
