"""The cards and the environment, written from artifacts."""

import base64
import re
import shutil
from pathlib import Path

import pytest
from reported import CLASSES, new_run

from scanloop.artifacts import is_exempt, read_json, read_table, write_json
from scanloop.config import ReportConfig
from scanloop.provenance import digest, file_digest
from scanloop.report.cards import written
from scanloop.report.material import Material
from scanloop.steps.report import report


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return new_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ReportConfig(title="Slices", licence="CC BY 4.0", intended_use="Trying things out.")
    output = tmp_path_factory.mktemp("out") / "report"
    report(config, **artifacts, output=output)
    return output


def rows_of(card: str, heading: str) -> dict[str, list[str]]:
    """Cells of the first table below a heading, by their first."""
    part = card.partition(f"## {heading}\n")[2]
    lines = re.findall(r"^\| (.*) \|$", part.partition("\n## ")[0], re.MULTILINE)
    return {cells[0]: cells[1:] for cells in (line.split(" | ") for line in lines)}


def test_the_dataset_card_counts_what_the_catalog_holds(folder: Path, artifacts: dict[str, Path]) -> None:
    card = (folder / "DATASET_CARD.md").read_text()
    manifest = read_table(artifacts["catalog"], "manifest")
    labelled = manifest[manifest["label"].notna()]
    rows = rows_of(card, "Images by split and class")
    by_class = [str((labelled["label"] == name).sum()) for name in CLASSES]
    assert rows["Training, labelled"] == [*by_class, "0", "30", str(labelled["group_id"].nunique())]
    assert rows["Training, unlabelled (the pool)"] == ["0", "0", "18", "18", "9"]
    assert "d" * 64 in card
    assert "CC BY 4.0" in card
    assert rows_of(card, "Left out")["The file is empty"] == ["1"]
    assert "site &lt;b> can be read" not in card  # the verdict names it without a tag
    assert "Site can be read from the embedding." in card


def test_the_model_card_holds_the_metrics_of_the_evaluation_with_n_and_interval(
    folder: Path, artifacts: dict[str, Path]
) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    metrics = read_json(artifacts["evaluation"] / "metrics.json")
    entry = metrics["arms"][metrics["deployed_arm"]]["macro_f1"]
    value = f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
    assert rows_of(card, "Performance")["Macro-F1"] == [value, str(entry["n"]), str(entry["groups"])]
    assert file_digest(artifacts["bundle"] / "bundle.json") in card
    assert rows_of(card, "Learnt from")["labelled"] == ["15", "1,501", "1,516"]
    assert "affine (chosen), from 30 images in 15 groups" in card
    assert "Not a medical device" in card
    assert "Trying things out." in card
    worst = min(
        read_json(artifacts["evaluation"] / "robustness.json")["alterations"],
        key=lambda row: row["same_answer"]["value"],
    )
    assert worst["setting"] in card


def test_names_from_the_data_are_no_markup(folder: Path) -> None:
    for name in ("MODEL_CARD.md", "DATASET_CARD.md"):
        card = (folder / name).read_text()
        assert "normal & &lt;b>" in card
        assert "<b>" not in card


def test_the_page_holds_each_card_whole(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    links = dict(re.findall(r'<a download="([^"]+)" href="data:text/markdown;charset=utf-8;base64,([^"]+)"', html))
    assert set(links) == {"MODEL_CARD.md", "DATASET_CARD.md"}
    for name, payload in links.items():
        assert base64.b64decode(payload) == (folder / name).read_bytes()


def test_without_a_model_there_is_no_model_card(artifacts: dict[str, Path]) -> None:
    assert set(written(Material({"catalog": artifacts["catalog"]}))) == {"DATASET_CARD.md"}


def test_the_same_artifacts_give_the_same_cards_on_any_machine(folder: Path, artifacts: dict[str, Path]) -> None:
    words = {"title": "Slices", "licence": "CC BY 4.0", "intended_use": "Trying things out."}
    for name, text in written(Material(artifacts, **words)).items():
        assert text == (folder / name).read_text()


def test_a_model_that_was_not_measured_says_so(artifacts: dict[str, Path]) -> None:
    unmeasured = {name: path for name, path in artifacts.items() if name not in ("evaluation", "promotion")}
    card = written(Material(unmeasured))["MODEL_CARD.md"]
    assert "assume nothing of its performance" in card
    assert "not decided by this run" in card


def test_the_environment_tells_seeds_digests_and_machine_of_each_artifact(
    folder: Path, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    found = read_json(folder / "environment.json")
    assert set(found["artifacts"]) == set(artifacts)
    entry = found["artifacts"]["triage"]
    assert (entry["seed"], entry["config_sha256"]) == (7, digest({"seed": 7}))
    assert entry["machine"] == {"cores": 2}
    assert found["packages"]["python"]
    assert found["machine"]["processor_model"]
    assert is_exempt(folder / "environment.json")
    assert not is_exempt(folder / "MODEL_CARD.md")
    copy = shutil.copytree(artifacts["triage"], tmp_path / "triage")
    write_json(copy / "artifact.json", read_json(copy / "artifact.json") | {"config": {"seed": 8}})
    report(ReportConfig(), **(artifacts | {"triage": copy}), output=tmp_path / "report")
    assert read_json(tmp_path / "report" / "environment.json")["artifacts"]["triage"]["config_sha256"] != digest(
        {"seed": 7}
    )
