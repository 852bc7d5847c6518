"""A wave that is taken back: its labels count no more, models are made again, and no kill brings it back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chain import LENIENT, PLANS, Chain
from typer.testing import CliRunner

from scanloop import build, replacing
from scanloop.artifacts import read_json, read_table
from scanloop.cli import app
from scanloop.errors import ArtifactError
from scanloop.steps.pseudo_label import pseudo_label
from scanloop.steps.retrain import retrain
from scanloop.waves import take_back

LEARNT = ("catalog", "encoder", "embeddings", "triage", "labels")


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Path:
    for name in (*LEARNT, "pseudo_labels", "bundle", "baseline"):
        shutil.copytree(chain[name], tmp_path / "run" / name)
    return tmp_path / "run"


def inputs(run: Path, *names: str) -> dict[str, Path]:
    return {name: run / name for name in names}


def test_a_wave_taken_back_is_pool_again_and_its_models_are_named_and_made_again(run: Path) -> None:
    before = read_table(run / "pseudo_labels", "pseudo_labels.parquet")
    promoted = set(before.loc[before["promoted"], "slice_id"])
    key = build.read_key(run / "pseudo_labels")
    assert take_back(run, 1, "a test", dry_run=True)["taken_back"] == len(promoted) > 0
    assert build.read_key(run / "pseudo_labels") == key
    assert take_back(run, 1, "a test") == {"wave": 1, "taken_back": len(promoted), "models": ["bundle"]}
    after = read_table(run / "pseudo_labels", "pseudo_labels.parquet")
    assert not after["promoted"].any()
    rows = after["slice_id"].isin(promoted)
    assert set(after.loc[rows, "reason"]) == {"wave 1 was taken back"}
    assert (after.loc[rows & after["weight"].notna(), "weight"] == 0).all()
    untouched = ~rows
    np.testing.assert_array_equal(after.loc[untouched, "weight"], before.loc[untouched, "weight"])
    assert build.read_key(run / "pseudo_labels") != key
    facts = read_json(run / "pseudo_labels" / "certificate.json")
    assert (facts["promoted"], facts["taken_back"]["promoted"], facts["taken_back"]["reason"]) == (
        0, len(promoted), "a test",
    )  # fmt: skip
    summary = pseudo_label(
        LENIENT, **inputs(run, "catalog", "embeddings", "triage", "labels"), output=run / "pseudo_labels"
    )
    assert summary.promoted == 0  # it is found as it is now, not made again
    made = retrain(PLANS["bundle"][1], **inputs(run, *LEARNT, "pseudo_labels"), output=run / "bundle")
    learnt = read_table(run / "bundle", "learnt.parquet")
    assert not promoted & set(learnt.loc[learnt["source"] == "pseudo_labelled", "slice_id"])
    assert made.pseudo_labelled == facts["soft_labelled"]
    assert take_back(run, 1, "again")["taken_back"] == 0


def test_another_wave_or_a_folder_without_pseudo_labels_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds wave 1, not wave 3"):
        take_back(run, 3, "")
    with pytest.raises(ArtifactError, match="give the folder of a run"):
        take_back(tmp_path, 1, "")
    assert not (run / build.UNFINISHED_UNPROMOTION).exists()


@pytest.mark.parametrize("moment", ["before the renames", "between them"])
def test_a_kill_in_the_middle_stops_the_run_until_it_is_taken_back_for_good(
    run: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        pass

    def dies(new: Path, output: Path) -> None:
        if moment == "between them":
            output.rename(replacing.retired(output))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "swap", dies)
        with pytest.raises(Killed):
            take_back(run, 1, "a test")
    asked = inputs(run, "catalog", "embeddings", "triage", "labels")
    with pytest.raises(ArtifactError, match="unpromote --wave 1 again"):
        pseudo_label(LENIENT, **asked, output=run / "pseudo_labels")
    assert take_back(run, 1, "a test")["taken_back"] > 0
    assert pseudo_label(LENIENT, **asked, output=run / "pseudo_labels").promoted == 0


def test_the_command_prints_what_it_did(run: Path) -> None:
    result = CliRunner().invoke(app, ["unpromote", "--wave", "1", "--run", str(run), "--dry-run"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert said["dry_run"]
    assert said["models"] == ["bundle"]
