"""The page of a run: whole, self-contained, escaped, and readable by everybody."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from scanloop.archive.shards import ShardWriter, read_slice
from scanloop.artifacts import read_table, write_bytes, write_json, write_table
from scanloop.config import ReportConfig
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.curves import curves
from scanloop.evaluation.holdout import Measurement, measure_arms
from scanloop.evaluation.intervals import Resampling
from scanloop.report.material import Material
from scanloop.report.page import SECTIONS, render
from scanloop.steps.report import report

SCRIPT = "scans/<script>alert(1)<script>.png"
CLASSES = ("cancer $a$", "normal & <b>")
VOID = {"meta", "img", "wbr", "br", "path", "use", "rect", "stop", "link"}
ANCHORS = [
    "verdict", "intake", "checks", "encoder", "triage", "queue", "pseudo-labels", "arms", "performance", "promotion",
    "drift", "money", "provenance",
]  # fmt: skip


def new_catalog(folder: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    writer, rows = ShardWriter(folder, 20), []
    for row in range(48):
        image = rng.integers(0, 255, (24, 20), dtype=np.uint8)
        sink = io.BytesIO()
        PIL.Image.fromarray(image).save(sink, "PNG")
        slice_id = hashlib.sha256(image.tobytes()).hexdigest()
        label = CLASSES[row % 2] if row < 30 else None
        rows.append({"slice_id": slice_id, "group_id": f"g{row // 2}", "label": label, "split": "train"}
                    | writer.add(slice_id, sink.getvalue())._asdict())  # fmt: skip
    writer.close()
    manifest = pd.DataFrame(rows)
    uris = [SCRIPT if row == 30 else f"scans/{row}.png" for row in range(48)]
    write_table(folder, "manifest", manifest)
    write_table(folder, "sources.parquet", pd.DataFrame({"slice_id": manifest["slice_id"], "uri": uris}))
    refused = [
        ("scans/<img src=x onerror=y>.jpg", "truncated", "ends early"),
        ("scans/empty.jpg", "empty_file", "0 bytes"),
    ]
    write_table(folder, "quarantine.parquet", pd.DataFrame(refused, columns=["uri", "reason", "detail"]))
    write_json(folder / "catalog.json", {"classes": CLASSES, "positive_class": CLASSES[0], "data_digest": "d" * 64})
    return manifest


def new_evaluation(folder: Path, manifest: pd.DataFrame) -> Mapping[str, dict[str, object]]:
    known = manifest[manifest["label"].notna()]
    labels = np.array([CLASSES.index(label) for label in known["label"]])
    rng, arms = np.random.default_rng(1), {}
    for arm, noise in (("supervised", 1.4), ("semi_supervised", 1.0)):
        logits = 1.5 * (2 * labels - 1) + noise * rng.normal(size=(3, len(labels)))
        positive = 1 / (1 + np.exp(-logits))
        arms[arm] = np.stack([1 - positive, positive], axis=2)
    holdout = Holdout(labels, known["group_id"].to_numpy(str))
    measurement = Measurement("cross_validation", known["slice_id"].tolist(), holdout, arms)
    metrics = measure_arms(measurement, Resampling(100), CLASSES, "semi_supervised")
    drawn = {arm: curves(values, holdout, CLASSES, CLASSES[0]) for arm, values in arms.items()}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "curves.json", {"positive_class": CLASSES[0], "deployed_arm": "semi_supervised", "arms": drawn})
    return metrics


def new_learning(root: Path, manifest: pd.DataFrame, metrics: Mapping[str, dict[str, object]]) -> None:
    write_bytes(root / "encoder" / "loss.csv", b"epoch,loss\n1,4.5\n2,3.25\n3,2.75\n")
    write_json(
        root / "encoder" / "encoder.json", {"encoder": "smallcnn", "method": "simclr", "slices": 48, "dimension": 64}
    )
    write_json(root / "embeddings" / "embeddings.json", {"dimension": 64})
    points = np.random.default_rng(2).normal(size=(48, 2))
    clusters = {"slice_id": manifest["slice_id"], "cluster": np.arange(48) % 3, "x": points[:, 0], "y": points[:, 1]}
    write_table(root / "triage", "clusters.parquet", pd.DataFrame(clusters))
    triage = {
        "k": 3, "silhouette": {"2": 0.09, "3": 0.12, "4": None}, "ari": 0.4, "nmi": None, "components": 9,
        "variance": 0.9,
    }  # fmt: skip
    write_json(root / "triage" / "triage.json", triage | {"verdict": "Three clusters with blurred borders."})
    queued = manifest["slice_id"][30:36]
    queue = {
        "slice_id": queued, "rank": range(1, 7), "uncertainty": 0.6, "diversity": 0.5, "price": 0.55, "reason": "torn",
    }  # fmt: skip
    write_table(root / "queue", "queue.parquet", pd.DataFrame(queue))
    write_json(root / "queue" / "queue.json", {"labels": 6, "price_eur": 3.3, "budget_eur": 30.0})
    write_table(root / "labels", "labels.parquet", pd.DataFrame({"slice_id": queued[:2], "label": CLASSES[0]}))
    pool = manifest["slice_id"][30:]
    pseudo = {
        "slice_id": pool, "uri": pool, "promoted": [row % 3 == 0 for row in range(18)], "reason": "low_confidence",
    }  # fmt: skip
    write_table(root / "pseudo_labels", "pseudo_labels.parquet", pd.DataFrame(pseudo))
    gate = {"passed": True, "reason": "both bounds hold", "min_f1": 0.88, "margin": 0.02}
    gate |= {f"{arm}_macro_f1": metrics["arms"][arm]["macro_f1"] for arm in ("supervised", "semi_supervised")}
    gate |= {"difference": metrics["difference"]["macro_f1"]}
    certificate = {
        "gate": gate, "promoted": 6, "candidates": 6, "pool": 18,
        "reasons": {"promoted": 6, "low confidence": 12},
        "rule": {"neighbours": 11, "cross_validation": {"folds": 5}},
    }  # fmt: skip
    write_json(root / "pseudo_labels" / "certificate.json", certificate | {"wave": 1})


def new_operations(root: Path) -> None:
    expectation = {
        "name": "unique", "column": "slice_id", "sentence": "Each slice stands once", "success": True, "observed": 48,
    }  # fmt: skip
    write_json(root / "validation" / "validation.json", {"success": True, "expectations": [expectation]})
    check = {"name": "groups", "passed": False, "value": 15, "bound": 100, "sentence": "Enough independent groups"}
    promotion = {
        "decision": "refused", "reason": "15 groups are fewer than 100", "checks": [check], "alias": "challenger",
    }  # fmt: skip
    write_json(root / "promotion" / "promotion.json", promotion)
    profile = {"n": 15, "mean": 0.8, "quantiles": {"0.5": 0.85}, "confident_share": 0.6, "prevalence": None}
    drift = {
        "method": "psi", "score": 0.14, "threshold": 0.2, "drifted": False, "verdict": "No drift.",
        "reference": profile,
    }  # fmt: skip
    write_json(root / "drift" / "drift.json", drift | {"current": profile})
    ledger = {"entries": [{"step": "encoder", "seconds": 61.0, "eur": 0.0005}], "total_eur": 1.1005, "seconds": 61.0}
    ledger |= {"labels": 2, "label_eur": 1.1, "cap_eur": 5000.0, "node": "cpu-2core"}
    write_json(root / "account" / "ledger.json", ledger)
    write_json(root / "bundle" / "bundle.json", {})
    write_json(root / "baseline" / "bundle.json", {})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that left everything."""
    root = tmp_path_factory.mktemp("run")
    manifest = new_catalog(root / "catalog")
    new_learning(root, manifest, new_evaluation(root / "evaluation", manifest))
    new_operations(root)
    folders = {folder.name: folder for folder in sorted(root.iterdir())}
    for name, folder in folders.items():
        write_json(
            folder / "artifact.json", {"key": name * 8, "step": name, "config": {"seed": 7}, "packages": {"numpy": "2"}}
        )
        write_json(folder / "run.json", {"machine": {"cores": 2}, "seconds": 1.5})
    return folders


@pytest.fixture(scope="module")
def html(artifacts: dict[str, Path]) -> str:
    return render(Material(artifacts, gallery=4), "A run <of> tests").html


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
    links = [attributes["href"] for tag, attributes in outline.tags if tag == "a"]
    assert links == ["#verdict", *(f"#{anchor}" for anchor in ANCHORS[1:])]
    assert "writes this section" not in html


def test_tags_are_nested_and_ids_are_unique(html: str) -> None:
    outline = outline_of(html)
    assert (outline.faults, outline.open) == ([], [])
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] for _, attributes in outline.tags if "href" in attributes]
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_nothing_is_asked_for_from_outside(html: str) -> None:
    outline = outline_of(html)
    addresses = [
        value for _, attributes in outline.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
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
    assert len(figures) == 8
    assert all(len(figure["aria-label"] or "") > 20 for figure in figures)
    assert len(re.findall(r"<figcaption>[^<]{40,}", html)) == 9
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


def test_the_gallery_shows_the_queued_pixels(html: str, artifacts: dict[str, Path]) -> None:
    manifest = read_table(artifacts["catalog"], "manifest").set_index("slice_id")
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    queued = read_table(artifacts["queue"], "queue.parquet")["slice_id"][:4]
    assert len(shown) == 4
    for slice_id, payload in zip(queued, shown, strict=True):
        stored = read_slice(artifacts["catalog"], *manifest.loc[slice_id, ["shard", "offset", "length"]])
        np.testing.assert_array_equal(np.array(PIL.Image.open(io.BytesIO(base64.b64decode(payload)))), stored)


def test_a_run_with_a_catalog_alone_says_which_step_writes_the_rest(artifacts: dict[str, Path]) -> None:
    page = render(Material({"catalog": artifacts["catalog"]}), "Begun")
    outline = outline_of(page.html)
    assert (outline.faults, outline.open) == ([], [])
    assert page.missing == [
        "validate", "pretrain", "triage", "acquire", "pseudo_label", "evaluate", "evaluate", "promote", "detect_drift",
        "account",
    ]  # fmt: skip
    assert "Not decided yet" in page.html
    assert page.html.count("writes this section") == len(page.missing) == len(SECTIONS) - 2


def test_the_same_artifacts_give_the_same_page(html: str, artifacts: dict[str, Path]) -> None:
    assert render(Material(artifacts, gallery=4), "A run <of> tests").html == html


def test_the_step_writes_the_page_and_counts_what_it_shows(artifacts: dict[str, Path], tmp_path: Path) -> None:
    summary = report(ReportConfig(gallery=3), **artifacts, output=tmp_path / "report")
    assert (summary.sections, summary.missing, summary.figures, summary.images) == (12, [], 8, 3)
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
    page = render(Material({"catalog": artifacts["catalog"], "evaluation": tmp_path}), "One class").html
    assert "undefined" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower().replace("provenance", "")
