"""What the page says of calibrators and of sets of classes is what the bundle and the predictions hold."""

import html as markup
import re
import shutil
from pathlib import Path

import pytest
from reported import CALIBRATION, CLASSES, CONFORMAL, new_run

from scanloop.artifacts import read_json, read_table, write_json
from scanloop.report.material import Material
from scanloop.report.page import render


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return new_run(tmp_path_factory.mktemp("run"))


def page(artifacts: dict[str, Path]) -> str:
    return render(Material(artifacts, title="Honest")).html


def plain(html: str) -> str:
    """Text of a page in one line, its signs as they are read."""
    return re.sub(r"\s+", " ", markup.unescape(re.sub(r"<[^>]*>", " ", html.replace("<wbr>", ""))))


def rows_of(html: str, caption: str) -> list[list[str]]:
    """Cells of the body of the table with this caption."""
    (table,) = [one for one in re.findall(r"<table.*?</table>", html, re.DOTALL) if caption in plain(one)]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in re.split(r"<tr[^>]*>", table)[2:]]
    return [[plain(cell).strip() for cell in row] for row in rows]


def changed(artifacts: dict[str, Path], folder: Path, name: str, file: str, **changes: object) -> dict[str, Path]:
    copy = shutil.copytree(artifacts[name], folder / name)
    write_json(copy / file, read_json(copy / file) | changes)
    return artifacts | {name: copy}


def test_each_calibrator_that_was_tried_stands_with_its_figures_and_the_one_in_use_is_marked(
    artifacts: dict[str, Path],
) -> None:
    stored = read_json(artifacts["bundle"] / "calibration.json")
    rows = rows_of(page(artifacts), "Calibrators that were tried, out of fold on 30 images in 15 independent groups")
    assert [row[0] for row in rows] == ["none before calibration", "temperature", "affine in use"]
    assert len(CALIBRATION.candidates) == len(stored["candidates"]) == 3
    for name, error, noise, loss, gain in rows:
        figures = stored["candidates"][name.split()[0]]
        assert error == f"{figures['ece']:.3f}"
        assert noise == f"{figures['ece_noise']:.3f} one in twenty above {figures['ece_noise_high']:.3f}"
        assert loss == f"{figures['log_loss']:.3f}"
        over = stored["gains"][name.split()[0]]
        written = f"{over['gain']:+.3f} ± {over['standard_error']:.3f}".replace("-", "\N{MINUS SIGN}")
        assert gain == ("reference" if name == "temperature" else written)


def test_the_sets_of_classes_hold_on_the_page_what_they_hold_on_the_images(artifacts: dict[str, Path]) -> None:
    text = plain(page(artifacts))
    assert "made to hold the true class of 85.0% of each class (alpha 0.15)" in text
    assert f"{CLASSES[0]} from 0.432 (7 images), {CLASSES[1]} from 0.247 (8 images)" in text
    assert CONFORMAL.guarantee in text
    table = read_table(artifacts["evaluation"], "predictions.parquet")
    held, sizes, by_class = 0, [], {name: [] for name in CLASSES}
    for row in table[table["split"] == "cross_validation"].itertuples():
        inside = {
            name for name, p, least in zip(CLASSES, row.probabilities, (0.4321, 0.2468), strict=True) if p >= least
        }
        inside.add(CLASSES[int(row.probabilities[1] > row.probabilities[0])])
        sizes.append(len(inside))
        by_class[row.given_label].append(row.given_label in inside)
        held += row.given_label in inside
    assert len(set(sizes)) == 2
    assert 0 < held < 30
    assert f"On the hold-out they hold it in {held / 30:.3f} (" in text
    for name, found in by_class.items():
        assert f"{name} {sum(found) / len(found):.3f} (n = {len(found)})" in text
    assert f"mean size {sum(sizes) / 30:.2f} of 2 classes" in text


def test_the_page_says_whether_the_thresholds_were_set_on_the_images_that_judge_them(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    words = "The thresholds come from these very images"
    holdout = read_json(artifacts["evaluation"] / "metrics.json")["holdout"] | {"kind": "test"}
    assert words in plain(page(artifacts))
    assert words not in plain(page(changed(artifacts, tmp_path, "evaluation", "metrics.json", holdout=holdout)))


def test_a_bundle_that_tells_of_neither_leaves_the_blocks_out(artifacts: dict[str, Path], tmp_path: Path) -> None:
    older = changed(artifacts, tmp_path / "older", "bundle", "calibration.json", candidates={})
    (older["bundle"] / "conformal.json").unlink()
    text = plain(page(older))
    assert "Calibrators that were tried" not in text
    assert "Sets of classes" not in text
    unfitted = changed(
        artifacts, tmp_path / "none", "bundle", "conformal.json", n=[0, 0], guarantee="Nothing was fitted."
    )
    assert "Sets of classes: Nothing was fitted." in plain(page(unfitted))
