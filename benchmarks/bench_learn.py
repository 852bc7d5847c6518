"""What unlabelled images add to 100 labels: the policy and each method against a tuned supervised head, paired.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_learn.py --splits 20

Frozen SqueezeNet features at 224 pixels, cached below --cache. Images of one patient and near-duplicates form a group.
Of the chest X-rays and both MedMNIST sets, a split keeps 30 % of the groups as hold-out, draws 100 labels from the
rest, one a group, and leaves the others as pool; all methods see the same split. The brain set has 99 labels and its
own pool: a split is one partition of group cross-validation, and is judged on all its held-out images together. The
interval of a mean gain is that of Student's t over the splits: these share images, so it speaks of the draw of labels,
not of other archives. "supervised_balanced" weighs classes by their frequency and knows no pool: what it gains is no
gain of unlabelled images.
"""

import argparse
import io
import json
import os
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from scipy import stats

LABELS, HELD_OUT = 100, 0.3
FOLDS, REPEATS = 5, 1
NEAR_BITS, NEAR_CORRELATION = 8, 0.97
SETS = ("kermany", "pneumoniamnist", "breastmnist", "brain", "kermany_causes")
BATCH = 64


def data_dir() -> Path:
    """Folder of the real images."""
    return Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def load_tar(name: str, pattern: str) -> tuple[list[Any], list[str], list[str]]:
    """Grey images of a tar, each byte string once, their names, and the patient that the pattern finds in the name."""
    from scanloop.archive.decode import grey_if_equal

    images: dict[bytes, tuple[Any, str]] = {}
    with tarfile.open(data_dir() / name) as tar:
        for one in sorted((one for one in tar if re.search(r"\.jpe?g$", one.name)), key=lambda one: one.name):
            payload = tar.extractfile(one).read()  # type: ignore[union-attr]
            pixels = np.array(PIL.Image.open(io.BytesIO(payload)).convert("RGB"))
            images.setdefault(payload, (grey_if_equal(pixels), one.name))
    names = [name for _, name in images.values()]
    return [image for image, _ in images.values()], names, [re.search(pattern, name)[0] for name in names]  # type: ignore[index]


def load(name: str) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Images of a set, their classes (-1 where unknown), and their patients."""
    if name.startswith("kermany"):
        images, names, groups = load_tar("kermany_cxr_224.tar", r"person\d+|IM-\d+")
        causes = np.array([1 if "_bacteria_" in one else 2 if "_virus_" in one else 0 for one in names])
        return images, causes if name == "kermany_causes" else (causes > 0).astype(int), np.array(groups)
    if name == "brain":
        images, names, groups = load_tar("brain_mri_oc.tar", r"[^/]+$")
        found = [0 if "/normal/" in one else 1 if "/cancer/" in one else -1 for one in names]
        return images, np.array(found), np.array([f"{row}-{group}" for row, group in enumerate(groups)])
    file = {"pneumoniamnist": "pneumoniamnist_rebuilt", "breastmnist": "breastmnist_resaved"}[name]
    arrays = np.load(data_dir() / "medmnist" / f"{file}.npz")
    parts = ("train", "val", "test")
    stacked = np.concatenate([arrays[f"{part}_images"] for part in parts])
    labels = np.concatenate([arrays[f"{part}_labels"].ravel() for part in parts]).astype(int)
    return list(stacked), labels, np.arange(len(labels)).astype(str)


def grouped(images: list[Any], patients: np.ndarray) -> np.ndarray:
    """Groups of images, as ingest makes them: one patient's, and near-duplicates."""
    from scanloop.archive import duplicates
    from scanloop.archive.splits import group_ids

    thumbnails = np.stack([duplicates.thumbnail(image) for image in images])
    telling = np.flatnonzero(~duplicates.is_blank(thumbnails))
    hashes = duplicates.perceptual_hashes(thumbnails[telling])
    bits = duplicates.affordable_bits(hashes, NEAR_BITS)
    near = duplicates.near_duplicate_pairs(hashes, lambda rows: thumbnails[telling[rows]], bits, NEAR_CORRELATION)
    order = np.argsort(patients, kind="stable")
    same = patients[order[1:]] == patients[order[:-1]]
    links = np.concatenate([telling[near], np.stack([order[:-1][same], order[1:][same]], axis=1)])
    return group_ids(np.arange(len(images), dtype=np.uint64), links)


def features(name: str, cache: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """Vectors, classes and groups of a set, from the cache where they were made before."""
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.embedding.weights import load_weights

    path = cache / f"{name}.npz"
    if not path.exists():
        images, labels, patients = load(name)
        encoder = new_encoder("squeezenet1_1", seed=0)
        preprocess = load_weights(encoder, str(data_dir() / "weights/SqueezeNet_fp16.onnx"), 224)
        vectors = Engine(encoder, preprocess, BATCH, "float32", [])(images)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, vectors=vectors, labels=labels, groups=grouped(images, patients))
    stored = np.load(path)
    return stored["vectors"], stored["labels"], stored["groups"]


def rows_of(vectors: Any, labels: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> Any:
    """Labelled rows as the methods take them."""
    from scanloop.learning.dataset import Known

    return Known(rows, vectors[rows], labels[rows], groups[rows], np.ones(len(rows), bool))


def one_split(known: Any, pool: Any, test: Any, seed: int) -> dict[str, np.ndarray]:
    """Predicted classes of the hold-out by what predicts, and under "policy" those of what the policy chose."""
    from scanloop.learning.heads import fit_head, tune_head
    from scanloop.learning.semisupervised import policy

    classes = len(np.unique(known.labels))
    tuned = tune_head(known, classes, FOLDS, seed)
    heads = policy.heads(tuned, known, pool)
    balanced = len(known.labels) / (classes * np.bincount(known.labels)[known.labels])
    heads["supervised_balanced"] = fit_head(known.vectors, known.labels, classes, tuned.c, balanced)
    found = {name: head.logits(test.vectors).argmax(axis=1) for name, head in heads.items()}
    choice = policy.choose(policy.gather(known, pool, classes, FOLDS, REPEATS, seed))
    return found | {"policy": found[choice.name], "chosen": np.array(choice.name)}


def draw(vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int) -> tuple[Any, Any, Any]:
    """Labels, pool and hold-out of one split; no group stands in two of hold-out and the rest."""
    from scanloop.learning.dataset import Pool

    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups))
    held_out = np.isin(groups, names[: int(HELD_OUT * len(names))])
    order = rng.permutation(np.flatnonzero(~held_out))
    _, first = np.unique(groups[order], return_index=True)
    known = order[np.sort(first)[:LABELS]]
    rest = np.setdiff1d(order, known)
    test = np.flatnonzero(held_out)
    rows = [rows_of(vectors, labels, groups, part) for part in (known, test)]
    return rows[0], Pool(rest, vectors[rest], groups[rest]), rows[1]


def scores(name: str, splits: int, cache: Path) -> tuple[dict[str, list[float]], list[str]]:
    """Macro-F1 of each way in each split, in points, and what the policy chose."""
    from sklearn.metrics import f1_score

    from scanloop.learning.cross_validation import group_folds
    from scanloop.learning.dataset import Pool

    vectors, labels, groups = features(name, cache)
    found: dict[str, list[float]] = {}
    chosen = []
    for seed in range(splits):
        if name == "brain":
            every = rows_of(vectors, labels, groups, np.flatnonzero(labels >= 0))
            unlabelled = np.flatnonzero(labels < 0)
            pool = Pool(unlabelled, vectors[unlabelled], groups[unlabelled])
            predicted: dict[str, np.ndarray] = {}
            for cut in group_folds(every.labels, every.groups, FOLDS, 1, seed):
                test = every.take(cut.test)
                answers = one_split(every.take(cut.train), pool.without(test.groups), test, seed)
                chosen.append(str(answers.pop("chosen")))
                for way, values in answers.items():
                    predicted.setdefault(way, np.zeros(len(every.labels), int))[cut.test] = values
            truth = every.labels
        else:
            known, pool, test = draw(vectors, labels, groups, seed)
            predicted = one_split(known, pool, test, seed)
            chosen.append(str(predicted.pop("chosen")))
            truth = test.labels
        for way, values in predicted.items():
            found.setdefault(way, []).append(100 * float(f1_score(truth, values, average="macro")))
    return found, chosen


def gain(ours: list[float], base: list[float]) -> dict[str, Any]:
    """Mean paired gain in points with its 95 % interval, the share of splits that win, tie, and the worst."""
    difference = np.array(ours) - np.array(base)
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    mean = difference.mean()
    return {
        "macro_f1": round(float(np.mean(ours)), 2),
        "gain": round(float(mean), 2),
        "interval": [round(float(mean - half), 2), round(float(mean + half), 2)],
        "wins": round(float((difference > 0).mean()), 2),
        "ties": round(float((difference == 0).mean()), 2),
        "worst": round(float(difference.min()), 2),
    }


def main() -> None:
    """Measure each set in turn; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "bench_learn", "n": arguments.splits, "labels": LABELS}
    for name in arguments.sets:
        started = time.perf_counter()
        found, chosen = scores(name, arguments.splits, arguments.cache)
        base = found.pop("supervised")
        row: dict[str, Any] = {"supervised": round(float(np.mean(base)), 2)}
        row |= {way: gain(values, base) for way, values in found.items()}
        row["chosen"] = {way: chosen.count(way) for way in sorted(set(chosen))}
        row["seconds"] = round(time.perf_counter() - started, 1)
        figures[name] = row
        print(json.dumps({name: row}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
