"""A run that left everything, written by hand: what the tests of its page start from."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image

from scanloop.archive.shards import ShardWriter
from scanloop.artifacts import write_bytes, write_json, write_table
from scanloop.bundle.facts import Calibration
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import Conformal
from scanloop.evaluation.alterations import ALTERATIONS
from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.curves import curves
from scanloop.evaluation.holdout import Measurement, measure_arms
from scanloop.evaluation.intervals import Resampling
from scanloop.evaluation.learning_curve import learning_curve
from scanloop.evaluation.robustness import Subjects, robustness
from scanloop.evaluation.subgroups import subgroups

SCRIPT = "scans/<script>alert(1)<script>.png"
CLASSES = ("cancer $a$", "normal & <b>")
NAMES = ("ece", "ece_noise", "ece_noise_high", "log_loss")
CALIBRATION = Calibration(
    Calibrator("affine", bias=(0.1, -0.1)), "affine (chosen)", 30, 15,
    {
        "temperature": dict(zip(NAMES, (0.0731, 0.0312, 0.0615, 0.4412), strict=True)),
        "none": dict(zip(NAMES, (0.1234, 0.0456, 0.0789, 0.5678), strict=True)),
        "affine": dict(zip(NAMES, (0.0412, 0.0323, 0.0634, 0.4001), strict=True)),
    },
    {
        "temperature": {"gain": 0.0, "standard_error": 0.0}, "none": {"gain": -0.1266, "standard_error": 0.0521},
        "affine": {"gain": 0.0411, "standard_error": 0.0217},
    },
)  # fmt: skip
CONFORMAL = Conformal(0.15, (0.4321, 0.2468), (7, 8), True, "What holds stands here.")


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
    new_predictions(folder, manifest, arms["supervised"][0])
    new_depth(folder, manifest, arms["semi_supervised"], holdout)
    return metrics


def new_predictions(folder: Path, manifest: pd.DataFrame, probabilities: np.ndarray) -> None:
    """The labelled slices as they were predicted out of fold; the others all like the first class."""
    values = np.concatenate([probabilities, np.tile([0.7, 0.3], (len(manifest) - len(probabilities), 1))])
    rows = {
        "slice_id": manifest["slice_id"], "uri": manifest["slice_id"], "given_label": manifest["label"],
        "split": np.where(manifest["label"].notna(), "cross_validation", "pool"),
        "label": np.array(CLASSES, dtype=object)[values.argmax(axis=1)], "probability": values[:, 0],
        "confidence": values.max(axis=1), "probabilities": values.tolist(), "promoted": False, "reason": "labelled",
    }  # fmt: skip
    write_table(folder, "predictions.parquet", pd.DataFrame(rows))


def new_depth(folder: Path, manifest: pd.DataFrame, arm: np.ndarray, holdout: Holdout) -> None:
    """What lies behind the metrics, of a model that reads the brightness of its images."""
    plan, images = Resampling(100), [np.full((8, 8), 8 * row, np.uint8) for row in range(30)]

    def predict(batch: Sequence[np.ndarray]) -> np.ndarray:
        bright = 1 / (1 + np.exp((np.array([image.mean() for image in batch]) - 100) / 30))
        return np.stack([bright, 1 - bright], axis=1)

    subjects = Subjects("test", manifest["slice_id"][:30].tolist(), holdout.groups, holdout.labels, images)
    write_json(folder / "robustness.json", robustness(predict, subjects, plan, 10, ALTERATIONS[:4]))
    parts = {"site <b>": pd.Series(["a"] * 16 + ["b"] * 12 + [None, "c"], dtype=object)}
    write_json(folder / "subgroups.json", subgroups(arm, holdout, parts, plan, 3))
    cut = (np.arange(20), np.arange(20, 30))
    curve = learning_curve(
        [[cut]] * 2, lambda _, test, seed: arm[seed, test], holdout.labels, holdout.groups, plan, len(CLASSES)
    )
    write_json(folder / "learning_curve.json", curve | {"labelled": 20})
    agreement = {"frozen": {"neighbour_agreement": None}, "fine-tuned": {"neighbour_agreement": None}}
    write_json(folder / "map.json", {
        "method": "tsne", "images": 30, "holdout_learnt_from": True, "features": agreement,
    })  # fmt: skip
    points = pd.DataFrame({"slice_id": manifest["slice_id"][:30], "x": np.arange(30.0), "y": np.arange(30.0) % 7})
    write_table(folder, "map.parquet", pd.concat([points.assign(features=name) for name in agreement]))


def new_triage(folder: Path, manifest: pd.DataFrame) -> None:
    points = np.random.default_rng(2).normal(size=(48, 2))
    clusters = {"slice_id": manifest["slice_id"], "cluster": np.arange(48) % 3, "x": points[:, 0], "y": points[:, 1]}
    write_table(folder, "clusters.parquet", pd.DataFrame(clusters))
    triage = {
        "k": 3, "silhouette": {"2": 0.09, "3": 0.12, "4": None}, "ari": 0.4, "nmi": None, "components": 9,
        "variance": 0.9,
    }  # fmt: skip
    limit = {"cosine": 0.97, "rate": 0.01, "references": 30, "pairs": 1000, "exceeding": 0, "expected": 0.0}
    limit |= {"expected_high": 0.09, "known": 3, "found": 2}
    pushed = {"images": 1, "pool": 18, "threshold": limit, "labelled_with_copies_in_pool": 2}
    group = {"slices": 2, "share": 2 / 48, "patient": 0, "study": 0, "near_duplicates": 2, "exact_copies": 1}
    accuracy = {
        "value": 0.93,
        "low": 0.9,
        "high": 0.95,
        "n": 40,
        "groups": 20,
        "confidence": 0.95,
        "method": "bootstrap",
    }
    site = {"name": "site <b>", "values": {"lyon": 20, "paris": 21}, "accuracy": accuracy, "chance": 0.6}
    site |= {"readable": True, "association": None, "verdict": "site can be read from the embedding"}
    triage |= {"pushed_out": pushed, "largest_group": group | {"warning": "too large"}, "origins": [site]}
    row = {"slice_id": manifest["slice_id"][30], "near": manifest["slice_id"][1], "cosine": 0.98, "reason": "near"}
    write_table(folder, "pushed_out.parquet", pd.DataFrame([row]))
    write_json(folder / "triage.json", triage | {"verdict": "Three clusters with blurred borders."})


def new_learning(root: Path, manifest: pd.DataFrame, metrics: Mapping[str, dict[str, object]]) -> None:
    write_bytes(root / "encoder" / "loss.csv", b"epoch,loss\n1,4.5\n2,3.25\n3,2.75\n")
    write_json(
        root / "encoder" / "encoder.json", {"encoder": "smallcnn", "method": "simclr", "slices": 48, "dimension": 64}
    )
    write_json(root / "embeddings" / "embeddings.json", {"dimension": 64})
    new_triage(root / "triage", manifest)
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
    gate = {"passed": True, "reason": "both bounds hold", "min_f1": 0.88, "margin": 0.02, "kind": "cross_validation"}
    gate |= {f"{arm}_macro_f1": metrics["arms"][arm]["macro_f1"] for arm in ("supervised", "semi_supervised")}
    gate |= {"difference": metrics["difference"]["macro_f1"]}
    certificate = {
        "gate": gate, "promoted": 6, "candidates": 6, "pool": 18,
        "reasons": {"promoted": 6, "low confidence": 12},
        "rule": {"neighbours": 11, "cross_validation": {"folds": 5}},
        "soft_labelled": 12, "recipe": {"method": "mixture", "thresholds": {CLASSES[0]: 0.9}},
        "choice": {"name": "mixture", "reason": "mixture lowers the log-loss out of fold", "gains": {}},
        "certificate": {
            "status": "certified", "reason": "at least 95% are right", "thresholds": {CLASSES[0]: 0.9},
            "missing_labels": 0,
            "certificate": {"precision": 0.95, "delta": 0.05, "audited": 140, "claims": [{
                "scope": "all classes", "threshold": 0.9, "audited": 93, "errors": 1, "precision_low": 0.9501,
                "delta": 0.05, "missing": 0,
            }]},
        },
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
        "reference": profile, "basis": "Compared is the confidence of one model.",
    }  # fmt: skip
    write_json(root / "drift" / "drift.json", drift | {"current": profile})
    ledger = {"entries": [{"step": "encoder", "seconds": 61.0, "eur": 0.0005}], "total_eur": 1.1005, "seconds": 61.0}
    ledger |= {"labels": 2, "label_eur": 1.1, "cap_eur": 5000.0, "node": "cpu-2core"}
    write_json(root / "account" / "ledger.json", ledger)
    about = {
        "architecture": "smallcnn + linear head, fine-tuned", "encoder": "smallcnn", "data_digest": "e" * 64,
        "training": {"stage": "fine-tuned"}, "counts": {"labelled": {CLASSES[0]: 15, CLASSES[1]: 1501}},
    }  # fmt: skip
    write_json(root / "bundle" / "bundle.json", about)
    write_json(root / "bundle" / "classes.json", {"classes": CLASSES, "positive_class": CLASSES[0]})
    write_json(root / "bundle" / "calibration.json", CALIBRATION.as_json())
    write_json(root / "bundle" / "conformal.json", CONFORMAL.as_json())
    write_json(root / "baseline" / "bundle.json", {})


def new_run(root: Path) -> dict[str, Path]:
    """Directory of every artifact, by name."""
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
