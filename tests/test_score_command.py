"""Scoring without a server: the rows of the client, whole after any kill, and a verdict on the engine that serves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from chain import PLANS, Chain
from served import TOKEN, Server
from tiny_bundle import draw_slices, new_bundle, new_facts, to_jpeg
from typer.testing import CliRunner

from scanloop.archive.shards import images_by_id
from scanloop.artifacts import read_table
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.read import read_bundle
from scanloop.cli import app
from scanloop.errors import ConfigError, TooFewLabelsError
from scanloop.evaluation.metrics import measure
from scanloop.scoring.gathered import Gathered
from scanloop.scoring.rows import Scored, read_tables, table_of, unreadable, write_tables
from scanloop.scoring.scorer import Pace
from scanloop.scoring.verifying import verify
from scanloop.steps.ingest import ingest

KILLS = int(os.environ.get("SCANLOOP_KILLS", "1"))


def run(*options: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["score", *map(str, options)])
    return done.exit_code, done.output, done.exception


def rows(path: Path) -> pd.DataFrame:
    frame = pq.read_table(path).to_pandas()
    frame["cancer"] = [dict(pairs).get("cancer", np.nan) for pairs in frame["probabilities"]]
    return frame


@pytest.fixture(scope="module")
def catalog(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn catalog of many shards."""
    folder = tmp_path_factory.mktemp("shards") / "catalog"
    ingest(PLANS["catalog"][1].model_copy(update={"shard_slices": 4}), output=folder)
    return folder


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the drawn catalog's classes."""
    facts = new_facts(classes=("lesion", "normal"), positive_class="lesion")
    return new_bundle(tmp_path_factory.mktemp("lesions"), facts=facts)


def test_files_get_what_the_server_says_of_them(
    served_folder: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLOOP_TOKEN", TOKEN)
    for number, image in enumerate(draw_slices(11)):
        (tmp_path / f"{number:02d}.jpg").write_bytes(to_jpeg(image))
    (tmp_path / "10.jpg").write_bytes(b"no image")
    code, told, _ = run("--bundle", served_folder, "--output", tmp_path / "s.csv", "--batch", 4, tmp_path)
    assert code == 1
    assert "images: 11 " in told
    asked = CliRunner().invoke(
        app, ["predict", "--endpoint", str(server.client.base_url), "--output", str(tmp_path / "p.csv"), str(tmp_path)]
    )
    assert asked.exit_code == 1
    scored, predicted = (pd.read_csv(tmp_path / name) for name in ("s.csv", "p.csv"))
    same = ["uri", "label", "set", "abstained"]
    pd.testing.assert_frame_equal(scored[same], predicted[same])
    for column in ("confidence", "strangeness"):
        np.testing.assert_allclose(scored[column], predicted[column], rtol=0, atol=1e-6)
    assert "not_an_image" in scored["fault"].iloc[-1]


def test_a_catalogs_slices_get_the_bundles_probabilities(lesions: Path, catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    assert run("--bundle", lesions, "--catalog", catalog, "--output", output, "--batch", 7)[0] == 0
    manifest, found = read_table(catalog, "manifest"), pq.read_table(output).to_pandas()
    assert found["slice_id"].tolist() == manifest["slice_id"].tolist()
    images = images_by_id(catalog, manifest)
    expected = read_bundle(lesions).predict([images[one] for one in manifest["slice_id"]])
    np.testing.assert_allclose([dict(pairs)["lesion"] for pairs in found["probabilities"]], expected[:, 0], atol=1e-6)
    sources = read_table(catalog, "sources.parquet").drop_duplicates("slice_id").set_index("slice_id")["uri"]
    assert found["uri"].tolist() == sources[found["slice_id"]].tolist()


def test_killed_at_any_instant_scoring_goes_on_and_ends_in_the_same_bytes_of_each_row(
    lesions: Path, catalog: Path, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    assert run("--bundle", lesions, "--catalog", catalog, "--output", whole, "--batch", 4)[0] == 0
    code = (  # slowed down, so that there is an instant to be killed at
        "import time, typer, scanloop.scoring.scorer as scorer, scanloop.score_command as command\n"
        "plain = scorer.decide\n"
        "def slow(*given): time.sleep(0.01); return plain(*given)\n"
        "scorer.decide = slow; typer.run(command.score_images)"
    )
    options = ["--bundle", str(lesions), "--catalog", str(catalog), "--output", str(output), "--batch", "4"]
    command, parts = [sys.executable, "-c", code, *options], tmp_path / ".out.parquet.parts"
    instants = random.Random(3)
    seen = []
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(parts.glob("*.parquet")))
        while process.poll() is None and len(list(parts.glob("*.parquet"))) <= before:
            time.sleep(0.002)
        time.sleep(instants.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(list(parts.glob("*.parquet"))))
    assert seen == sorted(seen)
    assert seen[0] > 0
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "had a row before" in told
    expected, found = rows(whole), rows(output)
    assert found["slice_id"].tolist() == expected["slice_id"].tolist()
    np.testing.assert_allclose(found["confidence"], expected["confidence"], rtol=0, atol=1e-6)
    assert not parts.exists()


def test_rows_of_another_model_or_precision_are_not_mixed(lesions: Path, served_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(to_jpeg(draw_slices(1)[0]))
    output = tmp_path / "out.parquet"
    assert run("--bundle", lesions, "--output", output, tmp_path / "a.jpg")[0] == 0
    _, _, error = run("--bundle", served_folder, "--output", output, tmp_path / "a.jpg")
    assert isinstance(error, ConfigError)
    assert "model_digest" in str(error)
    begun = tmp_path / "begun.parquet"
    Gathered(begun, {"precision": "bf16"}).add(Scored("a"))
    with pytest.raises(ConfigError, match="precision bf16, not float32"):
        Gathered(begun, {"precision": "float32"})


def test_a_kill_between_the_output_and_the_end_of_its_parts_counts_no_image_twice(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    gathered = Gathered(output)
    for name in ("a", "=b", "'c", 'd,\n"e"'):
        gathered.add(Scored(name, label=name, confidence=0.1 + 0.2, probabilities={"ä": 0.3}, members=["ä"]))
    gathered.flush()
    write_tables(output, list(gathered._tables()), ".csv")
    again = Gathered(output)
    again.add(unreadable("f", "truncated: ends early"))
    again.finish()
    (table,) = read_tables(output)
    assert table["uri"].to_pylist() == ["a", "=b", "'c", 'd,\n"e"', "f"]
    assert table["confidence"].to_pylist() == [0.1 + 0.2] * 4 + [None]
    assert table["probabilities"].to_pylist()[1] == [("ä", 0.3)]
    assert not any(line.startswith("=") for line in output.read_text().splitlines())
    assert table_of([unreadable("f", "truncated: ends early")]).equals(table.slice(4))


def test_the_verdict_on_an_engine_is_that_of_plain_arithmetic_on_the_held_out_images(
    lesions: Path, catalog: Path, tmp_path: Path
) -> None:
    report = tmp_path / "v.json"
    options = ("--bundle", lesions, "--catalog", catalog, "--output", tmp_path / "o.parquet", "--verify", report)
    code, told, error = run(*options, "--engine", "openvino", "--precision", "float32")
    assert code == 0, (told, error)
    manifest, found = read_table(catalog, "manifest"), json.loads(report.read_text())
    test = manifest[(manifest["split"] == "test") & manifest["label"].notna()]
    images = images_by_id(catalog, test)
    plain = read_bundle(lesions).predict([images[one] for one in test["slice_id"]])
    labels = np.array([("lesion", "normal").index(one) for one in test["label"]])
    expected = measure(plain, labels)
    assert found["n"] == len(test) > 20
    for arm in ("served", "onnxruntime_float32"):
        for name in ("accuracy", "ece"):
            assert found[arm][name]["value"] == pytest.approx(expected[name], abs=1e-4)
            assert found[arm][name]["low"] <= found[arm][name]["value"] <= found[arm][name]["high"]
        loss = -np.mean([np.log(plain[row, label]) for row, label in enumerate(labels)])
        assert found[arm]["log_loss"]["value"] == pytest.approx(loss, abs=1e-4)
    assert 0 < found["largest_difference"] < 1e-5
    assert (found["changed_labels"], found["changed_groups"]["value"]) == (0, 0)
    assert found["changed_groups"]["high"] == pytest.approx(1 - 0.025 ** (1 / found["groups"]))
    assert found["within_gate"] is True


def test_an_engine_that_strays_is_outside_of_the_gate_and_labels_that_judge_nothing_are_refused(
    lesions: Path, served_folder: Path, catalog: Path
) -> None:
    bundle = read_bundle(lesions, Wanted())

    class Straying:
        name, precision = "onnxruntime", "float32"

        def run_squares(self, squares: np.ndarray) -> object:
            outputs = bundle.engine.run_squares(squares)
            return type(outputs)(outputs.logits * 1.2 + [0.3, 0], outputs.embeddings)

    straying = type(bundle)(**{**vars(bundle), "engine": Straying()})
    found = verify(straying, bundle.engine, catalog, Pace())
    assert found["largest_difference"] > found["gate"]
    assert found["within_gate"] is False
    assert (found["changed_groups"].value > 0) == (found["changed_labels"] > 0)
    assert found["log_loss_difference"].value != 0
    other = read_bundle(served_folder)
    with pytest.raises(TooFewLabelsError, match="cancer, normal"):
        verify(other, other.engine, catalog, Pace())
