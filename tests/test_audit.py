"""The audit: bought through the queue, learnt from by no head that it judges, and what certifies a wave."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from chain import LENIENT, Chain

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.config import AcquireConfig, OracleConfig
from scanloop.learning import teaching
from scanloop.learning.dataset import Known
from scanloop.learning.heads import tune_head
from scanloop.steps.acquire import acquire
from scanloop.steps.oracle import oracle
from scanloop.steps.pseudo_label import pseudo_label

INPUTS = ("catalog", "embeddings", "triage")
PLAN = AcquireConfig(seed=3, budget_eur=8.0, audit=12)
STRICT = LENIENT.model_copy(update={"uncertified": False, "precision": 0.99, "delta": 0.01})


@pytest.fixture(scope="module")
def folder(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A queue with an audit, its answers, and pseudo-labels that so few of them cannot certify."""
    folder = tmp_path_factory.mktemp("audit")
    acquire(PLAN, **chain.inputs(*INPUTS), output=folder / "queue")
    oracle(OracleConfig(), catalog=chain["catalog"], queue=folder / "queue", output=folder / "labels")
    pseudo_label(STRICT, **chain.inputs(*INPUTS), labels=folder / "labels", output=folder / "refused")
    return folder


def audited(folder: Path) -> list[str]:
    queue = read_table(folder / "queue", "queue.parquet")
    return sorted(queue.loc[queue["purpose"] == "audit", "slice_id"])


def test_the_audit_is_queued_first_and_asked_for_until_it_is_bought(chain: Chain, folder: Path, tmp_path: Path) -> None:
    queue = read_table(folder / "queue", "queue.parquet")
    assert queue["purpose"].tolist() == ["audit"] * 12 + ["train"] * (len(queue) - 12)
    assert queue["slice_id"].is_unique
    inputs = chain.inputs(*INPUTS)
    again = acquire(PLAN, **inputs, labels=chain["labels"], output=tmp_path / "next")
    assert again.audit == 12  # none of the labels bought before was an audit
    assert acquire(PLAN, **inputs, labels=folder / "labels", output=tmp_path / "last").audit == 0


def test_the_rules_head_has_not_learnt_from_the_audit_and_the_pools_teacher_has(
    chain: Chain, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Known] = []

    def spy(known: Known, *rest: object) -> object:
        seen.append(known)
        return tune_head(known, *rest)

    monkeypatch.setattr(teaching, "tune_head", spy)
    inputs = chain.inputs(*INPUTS) | {"labels": folder / "labels"}
    refused = pseudo_label(STRICT, **inputs, output=tmp_path / "refused")
    blind, learner = seen
    assert not set(audited(folder)) & set(blind.slice_ids)
    assert set(audited(folder)) <= set(learner.slice_ids)
    assert (refused.certificate, refused.promoted) == ("refused", 0)
    refusal = read_json(tmp_path / "refused" / "certificate.json")["certificate"]["reason"]
    assert "more images drawn at random" in refusal


def test_an_audit_that_agrees_certifies_and_moves_no_confidence(chain: Chain, folder: Path, tmp_path: Path) -> None:
    said = read_table(folder / "refused", "pseudo_labels.parquet").drop_duplicates("slice_id").set_index("slice_id")
    assert (said.loc[audited(folder), "reason"] == "audited").all()
    answers = read_table(folder / "labels", "labels.parquet")
    agreeing = answers["label"].where(answers["purpose"] == "train", answers["slice_id"].map(said["label"]))
    shutil.copytree(folder / "labels", tmp_path / "agreeing")
    write_table(tmp_path / "agreeing", "labels.parquet", answers.assign(label=agreeing))
    record = read_json(tmp_path / "agreeing" / "artifact.json")
    write_json(tmp_path / "agreeing" / "artifact.json", record | {"key": "another"})
    config = STRICT.model_copy(update={"precision": 0.6, "delta": 0.2})
    summary = pseudo_label(
        config, **chain.inputs(*INPUTS), labels=tmp_path / "agreeing", output=tmp_path / "pseudo_labels"
    )
    facts = read_json(tmp_path / "pseudo_labels" / "certificate.json")
    assert (summary.certificate, facts["audited"]) == ("certified", 12)
    table = read_table(tmp_path / "pseudo_labels", "pseudo_labels.parquet").drop_duplicates("slice_id")
    table = table.set_index("slice_id")
    pd.testing.assert_series_equal(table["confidence"], said["confidence"])  # whatever the audit's answers are
    (claim,) = facts["certificate"]["certificate"]["claims"]
    assert claim["errors"] == 0
    assert claim["audited"] <= (table.loc[audited(folder), "confidence"] >= claim["threshold"]).sum()
    promoted = table[table["promoted"]]
    assert len(promoted) == summary.promoted > 0
    assert (promoted["confidence"] >= claim["threshold"]).all()
    assert (promoted["weight"] == config.weight).all()
