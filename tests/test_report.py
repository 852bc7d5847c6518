"""The page of a run: whole, self-contained, escaped, and readable by everybody."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from reported import CLASSES, new_run
from stored import stored_slices

from scanloop.artifacts import read_json, read_table, write_json
from scanloop.config import ReportConfig
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.curves import curves
from scanloop.evaluation.holdout import Measurement, measure_arms
from scanloop.evaluation.intervals import Resampling
from scanloop.report.material import Material
from scanloop.report.page import SECTIONS, render
from scanloop.steps.report import report

VOID = {"meta", "img", "wbr", "br", "path", "use", "rect", "stop", "link"}
ANCHORS = [
    "verdict", "intake", "checks", "encoder", "triage", "purity", "queue", "pseudo-labels", "arms", "performance",
    "errors", "robustness", "subgroups", "labels-gain", "map", "promotion", "drift", "money", "cards", "provenance",
]  # fmt: skip


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that left everything."""
    return new_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(artifacts: dict[str, Path]) -> str:
    return render(Material(artifacts, gallery=4, title="A run <of> tests")).html


class Outline(HTMLParser):
    """Tags in their nesting, with what a self-contained, accessible page must get right."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


def outline_of(html: str) -> Outline:
    outline = Outline()
    outline.feed(html)
    outline.close()
    return outline


def test_every_section_is_there_in_its_order(html: str) -> None:
    outline = outline_of(html)
    assert [attributes["id"] for tag, attributes in outline.tags if tag == "section"] == ANCHORS
    links = [attributes["href"] for tag, attributes in outline.tags if tag == "a" and "download" not in attributes]
    assert links == ["#verdict", *(f"#{anchor}" for anchor in ANCHORS[1:])]
    assert "writes this section" not in html


def test_tags_are_nested_and_ids_are_unique(html: str) -> None:
    outline = outline_of(html)
    assert (outline.faults, outline.open) == ([], [])
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [
        attributes["href"] for _, attributes in outline.tags if "href" in attributes and "download" not in attributes
    ]
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_nothing_is_asked_for_from_outside(html: str) -> None:
    outline = outline_of(html)
    addresses = [
        value for _, attributes in outline.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    allowed = ("#", "data:image/png;base64,", "data:text/markdown;charset=utf-8;base64,")
    assert all(address.startswith(allowed) for address in addresses)
    assert all(address.startswith("#") for address in re.findall(r"url\(\s*['\"]?([^)'\"]*)", html))
    assert not [tag for tag, _ in outline.tags if tag in ("script", "link", "iframe", "object", "embed", "image")]
    assert "@import" not in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_what_comes_from_files_is_escaped(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;script&gt;.png" in html
    assert "<img src=x" not in html
    assert "normal &amp; &lt;b&gt;" in html
    assert "cancer $a$" in html  # as written, not as mathematics
    assert "<title>A run &lt;of&gt; tests: report of a run</title>" in html


def test_every_figure_and_image_has_words_for_those_who_cannot_see_it(html: str) -> None:
    outline = outline_of(html)
    figures = [attributes for tag, attributes in outline.tags if attributes.get("role") == "img"]
    assert len(figures) == 11
    assert all(len(figure["aria-label"] or "") > 20 for figure in figures)
    assert len(re.findall(r"<figcaption>[^<]{40,}", html)) == 14
    assert all(attributes["alt"] for tag, attributes in outline.tags if tag == "img")


def test_the_verdict_says_what_was_decided_and_why_with_n_interval_and_cost(
    html: str, artifacts: dict[str, Path]
) -> None:
    verdict = re.sub(r"<[^>]+>", "", html[html.index('<section id="verdict"') : html.index('<section id="intake"')])
    entry = Material(artifacts).deployed["macro_f1"]
    assert "Not promoted" in verdict
    assert "15 groups are fewer than 100." in verdict
    assert f"{entry['value']:.3f} (95% interval {entry['low']:.3f} to {entry['high']:.3f})" in verdict
    assert "30 images in 15 independent groups" in verdict
    assert "€1.10, 0.02% of its cap of €5,000" in verdict


def test_the_galleries_show_the_queued_pixels_and_those_of_the_surest_errors(
    html: str, artifacts: dict[str, Path]
) -> None:
    manifest = read_table(artifacts["catalog"], "manifest")
    stored = stored_slices(artifacts["catalog"], manifest)
    queued = read_table(artifacts["queue"], "queue.parquet")["slice_id"][:4].tolist()
    table = read_table(artifacts["evaluation"], "predictions.parquet").dropna(subset="given_label")
    wrong = table[table["label"] != table["given_label"]].sort_values("confidence", ascending=False)
    false = [wrong.loc[wrong["label"] == name, "slice_id"].tolist() for name in ("cancer $a$", "normal & <b>")]
    assert min(map(len, false)) > 0
    for anchor, expected in (("queue", queued), ("errors", [*false[0], *false[1]])):
        section = html.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]
        shown = re.findall(r'<img src="data:image/png;base64,([^"]+)"', section)
        for slice_id, payload in zip(expected, shown, strict=True):
            np.testing.assert_array_equal(
                np.array(PIL.Image.open(io.BytesIO(base64.b64decode(payload)))), stored[slice_id]
            )


def test_what_would_spoil_the_learning_is_told_with_its_figures(html: str) -> None:
    section = html.partition('id="purity"')[2].partition("</section>")[0]
    for words in (
        "1 unlabelled image left the pool", "site &lt;b&gt; can be read", "0.930 (0.900 to 0.950)", "Warning: too",
        "lyon (20), paris (21)", "cosine from 0.970", "2 of 3 known near-duplicates", "0.9800",
    ):  # fmt: skip
        assert words in section, words


def test_a_run_with_a_catalog_alone_says_which_step_writes_the_rest(artifacts: dict[str, Path]) -> None:
    page = render(Material({"catalog": artifacts["catalog"]}, title="Begun"))
    outline = outline_of(page.html)
    assert (outline.faults, outline.open) == ([], [])
    assert page.missing == [
        "validate", "pretrain", "triage", "triage", "acquire", "pseudo_label", *["evaluate"] * 7, "promote",
        "detect_drift", "account",
    ]  # fmt: skip
    assert "Not decided yet" in page.html
    assert page.html.count("writes this section") == len(page.missing) == len(SECTIONS) - 3


def test_the_same_artifacts_give_the_same_page(html: str, artifacts: dict[str, Path]) -> None:
    assert render(Material(artifacts, gallery=4, title="A run <of> tests")).html == html


def test_the_step_writes_the_page_and_counts_what_it_shows(artifacts: dict[str, Path], tmp_path: Path) -> None:
    table = read_table(artifacts["evaluation"], "predictions.parquet").dropna(subset="given_label")
    wrong = int((table["label"] != table["given_label"]).sum())
    assert wrong > 0
    summary = report(ReportConfig(gallery=3), **artifacts, output=tmp_path / "report")
    assert (summary.sections, summary.missing, summary.figures, summary.images) == (19, [], 11, 3 + wrong)
    assert summary.decision == "refused"
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_an_undefined_metric_is_called_undefined(artifacts: dict[str, Path], tmp_path: Path) -> None:
    labels = np.zeros(8, dtype=int)
    arm = np.tile([0.8, 0.2], (1, 8, 1))
    holdout = Holdout(labels, np.arange(8))
    measurement = Measurement(
        "test", [str(row) for row in labels], holdout, {"supervised": arm, "semi_supervised": arm}
    )
    write_json(tmp_path / "metrics.json", measure_arms(measurement, Resampling(100), CLASSES, "supervised"))
    drawn = {"supervised": curves(arm, holdout, CLASSES, CLASSES[0])}
    write_json(tmp_path / "curves.json", {"positive_class": CLASSES[0], "arms": drawn})
    page = render(Material({"catalog": artifacts["catalog"], "evaluation": tmp_path}, title="One class")).html
    assert "undefined" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower().replace("provenance", "")


def changed(artifacts: dict[str, Path], folder: Path, name: str, file: str, **changes: object) -> str:
    """Page of the run with other values in one JSON file."""
    copy = shutil.copytree(artifacts[name], folder / name)
    write_json(copy / file, read_json(copy / file) | changes)
    return render(Material(artifacts | {name: copy}, title="Changed")).html


def test_the_page_says_where_the_gate_and_the_comparison_stand_on_the_same_images(
    html: str, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    words = "stand on the same labelled images"
    assert html.count(words) == 2  # beside the comparison, and beside the decision
    gate = read_json(artifacts["pseudo_labels"] / "certificate.json")["gate"] | {"kind": "validation"}
    other_rows = changed(artifacts, tmp_path / "gate", "pseudo_labels", "certificate.json", gate=gate)
    holdout = read_json(artifacts["evaluation"] / "metrics.json")["holdout"] | {"kind": "test"}
    test_split = changed(artifacts, tmp_path / "test", "evaluation", "metrics.json", holdout=holdout)
    supervised = changed(artifacts, tmp_path / "arm", "evaluation", "metrics.json", deployed_arm="supervised")
    assert not [page for page in (other_rows, test_split, supervised) if words in page]


def test_a_champion_below_the_bounds_is_told_from_a_refused_challenger(
    html: str, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"stays_champion": True, "alias": "champion", "reason": "the champion no longer meets the bounds"}
    page = changed(artifacts, tmp_path, "promotion", "promotion.json", **changes)
    for words in ("Below the bounds", "The model in use no longer meets the bounds.", "No longer. The champion"):
        assert words in page
        assert words not in html
    assert "The model is not put to use." in html
    assert "The model is not put to use." not in page


def test_the_drift_section_says_whose_confidence_is_compared(html: str) -> None:
    assert "Compared is the confidence of one model." in html


def test_the_certificate_stands_on_the_page_and_a_promotion_without_one_says_so(
    html: str, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    for word in ("93", "0.950", "proven", "At least 95% are right.", "Teach softly", "Mixture lowers the log-loss"):
        assert word in html
    facts = read_json(artifacts["pseudo_labels"] / "certificate.json")
    proof = facts["certificate"] | {"status": "uncertified", "reason": "promoted by the rule alone"}
    taken = {"at": "2026-01-02T03:04:05+00:00", "reason": "a reader erred", "promoted": 6}
    page = changed(
        artifacts, tmp_path / "other", "pseudo_labels", "certificate.json", certificate=proof, taken_back=taken
    )
    assert "not certified: promoted without proof" in page
    assert "Wave 1 was taken back on 2026-01-02T03:04:05+00:00: a reader erred." in page
