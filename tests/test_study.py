"""Studies: a grid that continues where it was killed, and a table whose intervals are those of the textbook."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy import stats
from typer.testing import CliRunner

from scanloop.artifacts import read_json
from scanloop.cli import app
from scanloop.errors import ArchiveError, ConfigError
from scanloop.studies.datasets import draw_labels, load_set
from scanloop.studies.grid import Grid
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Bench, Cell, Study, find_study, study_names
from scanloop.studies.summary import markdown, mean_of, summarise, write_summary
from scanloop.studies.vectors import encoder_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs against dark ones, as a set of MedMNIST's form."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 120), ("val", 10), ("test", 60)):
        labels = np.arange(count) % 2
        noise = rng.integers(0, 60, (count, 28, 28))
        disc = (np.hypot(*np.mgrid[-14:14, -14:14]) < 8)[None] * (60 + 60 * labels)[:, None, None]
        arrays |= {f"{part}_images": (noise + disc).astype(np.uint8), f"{part}_labels": labels[:, None]}
    (folder / "medmnist").mkdir()
    np.savez(folder / "medmnist" / "breastmnist_copied.npz", **arrays)
    return folder


def request(data: Path, **others: object) -> StudyRequest:
    values = {"datasets": ["breastmnist"], "percents": [5, 20], "seeds": 2, "data": data, "epochs": 1, "draws": 2}
    return StudyRequest.model_validate(values | {"batch_size": 32, "folds": 2} | others)


def run(data: Path, folder: Path, *more: str) -> str:
    result = CliRunner().invoke(app, [
        "study", "ssl-ablation", "--dataset", "breastmnist", "--fractions", "5,20", "--seeds", "2", "--data", str(data),
        "--out", str(folder), "--set", "epochs=1", "--set", "draws=2", "--set", "batch_size=32", "--set", "folds=2",
        *more,
    ], catch_exceptions=False)  # fmt: skip
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    kept = ("times.jsonl",)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in kept}


@pytest.fixture(scope="module")
def studied(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studied")
    run(data, folder)
    return folder


def test_a_study_leaves_a_table_its_figures_and_a_picture(studied: Path) -> None:
    table = (studied / "summary.md").read_text()
    assert table.count("| breastmnist |") == 4  # two arms, two shares
    lines = read_json(studied / "summary.json")["lines"]
    assert {(one["arm"], one["percent"], one["labels"]) for one in lines} == {
        (arm, percent, labels) for arm in ("random", "ssl") for percent, labels in ((5.0, 6.0), (20.0, 24.0))
    }
    assert all(0 <= one["value"]["mean"] <= 1 and one["value"]["n"] == 2 for one in lines)
    found = [one["value"]["mean"] for one in lines if (one["metric"], one["percent"]) == ("auroc", 20.0)]
    assert min(found) > 0.9  # the discs are told apart by their brightness
    with PIL.Image.open(studied / "summary.png") as picture:
        assert picture.size[0] > 600


def test_a_second_run_computes_nothing_and_changes_no_byte(
    data: Path, studied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(studied)
    monkeypatch.setattr("scanloop.studies.probing.tune_head", None)  # whoever computes fails
    run(data, studied)
    assert contents(studied) == before


def test_a_study_that_is_killed_at_any_cell_ends_with_the_same_bytes(
    data: Path, studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, died = find_study("ssl-ablation"), 0
    for survive in (1, 3, 2, 99):
        left = [survive]

        def dying(cell: Cell, bench: Bench, left: list[int] = left) -> Mapping[str, float]:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return study.measure(cell, bench)

        fragile = Study(**(vars(study) | {"measure": dying}))
        try:
            Grid("ssl-ablation", fragile, request(data), tmp_path).run()
        except KeyboardInterrupt:
            died += 1
    assert died == 3
    write_summary(tmp_path, Grid("ssl-ablation", study, request(data), tmp_path).results(), study)
    ours, theirs = contents(tmp_path), contents(studied)
    assert {name: ours[name] for name in theirs if "cache" not in name} == {
        name: theirs[name] for name in theirs if "cache" not in name
    }


def test_other_settings_or_data_are_other_cells(data: Path, studied: Path, tmp_path: Path) -> None:
    study = find_study("ssl-ablation")
    assert not Grid("ssl-ablation", study, request(data), studied).missing()
    assert len(Grid("ssl-ablation", study, request(data, learning_rate=0.01), studied).missing()) == 8
    assert len(Grid("ssl-ablation", study, request(data, percents=[5, 20, 50]), studied).missing()) == 4
    assert len(Grid("ssl-ablation", study, request(data, seed=1), studied).missing()) == 4  # seeds 1 and 2, not 0 and 1
    with np.load(data / "medmnist" / "breastmnist_copied.npz") as arrays:
        changed = dict(arrays)
    changed["test_images"][0, 0, 0] ^= 1
    np.savez(tmp_path / "breastmnist.npz", **changed)
    assert len(Grid("ssl-ablation", study, request(tmp_path), studied).missing()) == 8


def test_a_dry_run_lists_the_cells_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    told = run(data, tmp_path / "nowhere", "--dry-run")
    assert told.count("missing breastmnist-") == 8
    assert "8 of 8 cells missing, about " in told
    assert not (tmp_path / "nowhere").exists()


def test_the_estimate_is_the_mean_of_what_was_measured(data: Path, tmp_path: Path) -> None:
    study = find_study("ssl-ablation")
    grid = Grid("ssl-ablation", study, request(data), tmp_path)
    assert grid.seconds_left() == 8 * study.guess_seconds
    (tmp_path / "times.jsonl").write_text("".join(json.dumps({"cell": "a", "seconds": s}) + "\n" for s in (1.0, 3.0)))
    assert grid.seconds_left() == 16.0


def test_every_study_is_found_by_its_name_and_another_is_refused_with_the_list() -> None:
    assert {"label-efficiency", "ssl-ablation"} <= set(study_names())
    for name in study_names():
        study = find_study(name)
        values = {"datasets": ["breastmnist"], "weights": "imagenet"}
        assert study.baseline in study.arms(StudyRequest.model_validate(values))
    with pytest.raises(ConfigError, match="label-efficiency"):
        find_study("alchemy")


def test_only_the_arms_that_are_named_are_tried_and_an_unknown_one_is_refused(data: Path, tmp_path: Path) -> None:
    said = run(data, tmp_path / "out", "--arms", "ssl", "--dry-run")
    assert said.count("missing") == 5  # four cells, and their number
    assert "random" not in said
    with pytest.raises(ConfigError, match="no arm nonsense; there are random, ssl"):
        Grid("ssl-ablation", find_study("ssl-ablation"), request(data, arms=["nonsense"]), tmp_path / "out")


def test_a_wrong_request_names_every_fault(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, [
            "study", "ssl-ablation", "--dataset", "cats", "--fractions", "0,5", "--seeds", "0", "--out", str(tmp_path),
        ], catch_exceptions=False)  # fmt: skip
    for part in ("datasets", "percents", "seeds"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        run(data, tmp_path, "--set", "epochs")


def test_a_missing_or_ambiguous_file_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"pneumoniamnist\*\.npz is needed below it, found none"):
        load_set("pneumoniamnist", request(data))
    for name in ("breastmnist.npz", "breastmnist_2.npz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ArchiveError, match=r"found breastmnist\.npz, breastmnist_2\.npz"):
        load_set("breastmnist", request(tmp_path))


@pytest.mark.parametrize(("percent", "expected"), [(1, [2, 2]), (5, [4, 2]), (50, [40, 10]), (100, [80, 20])])
def test_labels_are_drawn_in_proportion_with_two_of_each_class_at_least(percent: float, expected: list[int]) -> None:
    labels = np.repeat([0, 1], [80, 20])
    rows = draw_labels(labels, percent, seed=1)
    assert np.bincount(labels[rows]).tolist() == expected
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows) <= set(draw_labels(labels, min(100, 2 * percent), seed=1))


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.7, 0.8, 0.75, 0.9]
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high, found.n) == (
        pytest.approx(np.mean(values)),
        *map(pytest.approx, (low, high)),
        4,
    )
    assert mean_of([0.5]).low is None


def test_gains_are_paired_by_seed_and_a_figure_that_is_missing_is_left_out() -> None:
    study = Study("q", lambda _: ("a", "b"), lambda *_: {}, ("auroc",), "a", 1.0)
    values = {("a", 0): 0.5, ("a", 1): 0.7, ("a", 2): None, ("b", 0): 0.6, ("b", 1): 0.9, ("b", 2): 0.8}
    results = [
        {"cell": {"dataset": "d", "arm": arm, "percent": 5.0, "seed": seed}, "figures": {"auroc": value, "labels": 9}}
        for (arm, seed), value in values.items()
    ]
    lines = {line.arm: line for line in summarise(results, study)}
    assert (lines["a"].value.n, lines["b"].value.n) == (2, 3)
    assert lines["a"].gain is None
    assert lines["b"].gain is not None
    assert (lines["b"].gain.mean, lines["b"].gain.n) == (pytest.approx(0.15), 2)
    assert "| d | 5 % (9) | b | 3 | 76.7 [38.7, 114.6] | +15.0 [-48.5, +78.5] |" in markdown(
        list(lines.values()), study
    )


def test_the_real_sets_come_in_their_published_parts(data_dir: Path) -> None:
    sizes = {"breastmnist": (546, 156), "pneumoniamnist": (4708, 624)}
    for name, (train, test) in sizes.items():
        found = load_set(name, StudyRequest.model_validate({"datasets": [name], "data": data_dir}))
        assert (len(found.train.images), len(found.test.images), found.classes) == (train, test, 2)
        assert found.train.images[0].shape == (28, 28)


def test_no_patient_of_the_chest_x_rays_stands_in_both_parts(data_dir: Path) -> None:
    found = load_set("kermany", StudyRequest.model_validate({"datasets": ["kermany"], "data": data_dir}))
    assert not set(found.train.groups) & set(found.test.groups)
    assert len(found.test.images) == 624
    assert 4000 < len(found.train.images) < 5216


def test_the_study_of_calibration_judges_each_map_on_the_same_heads(data: Path, tmp_path: Path) -> None:
    from scanloop.calibration.maps import MAPS

    study, asked = find_study("calibration"), request(data, folds=3)
    assert study.arms(asked) == ("none", *MAPS, "auto")
    bench = Bench(asked, tmp_path)
    found = {arm: study.measure(Cell("breastmnist", arm, 20, 0), bench) for arm in study.arms(asked)}
    for figures in found.values():
        assert figures["excess"] == pytest.approx(figures["ece"] - figures["ece_noise"])
    assert found["none"]["accuracy"] == found["temperature"]["accuracy"]  # a temperature moves no label
    assert found["none"]["log_loss"] != found["temperature"]["log_loss"]
    asked = request(data, folds=3, draws=1)
    one = {arm: study.measure(Cell("breastmnist", arm, 20, 0), Bench(asked, tmp_path)) for arm in study.arms(asked)}
    assert one["auto"] in [one[arm] for arm in MAPS]


def test_the_study_of_fine_tuning_starts_from_the_encoder_that_the_probe_looks_through(
    data: Path, tmp_path: Path
) -> None:
    study, asked = find_study("fine-tuning"), request(data, training_epochs=3)
    bench = Bench(asked, tmp_path)
    found = {arm: study.measure(Cell("breastmnist", arm, 20, 0), bench) for arm in study.arms(asked)}
    assert {figures["labels"] for figures in found.values()} == {24}
    assert len({figures["brier"] for figures in found.values()}) == 4
    encoder, _ = encoder_of(bench, "breastmnist", "ssl", 0)
    again, _ = encoder_of(bench, "breastmnist", "ssl", 0)
    fresh, _ = encoder_of(bench, "breastmnist", "random", 0)
    states = [one.state_dict()["blocks.0.0.weight"] for one in (encoder, again, fresh)]
    assert (states[0] == states[1]).all()
    assert (states[0] != states[2]).any()


def test_the_study_of_views_trains_an_encoder_for_each_strength(data: Path, tmp_path: Path) -> None:
    study, asked = find_study("augmentation"), request(data)
    weak, strong = (
        study.measure(Cell("breastmnist", arm, 20, 0), Bench(asked, tmp_path)) for arm in ("weak", "strong")
    )
    assert weak["brier"] != strong["brier"]
    assert len(list(tmp_path.glob("*.loss.csv"))) == 2
