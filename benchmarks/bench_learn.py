"""What unlabelled images add to 100 labels: the policy and each method against a tuned supervised head, paired.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_learn.py --splits 20

Frozen SqueezeNet features at 224 pixels, cached below --cache. Images of one patient and near-duplicates form a group.
Of the chest X-rays and both MedMNIST sets, a split keeps 30 % of the groups as hold-out, draws 100 labels from the
rest, one a group, and leaves the others as pool; all methods see the same split. The brain set has 99 labels and its
own pool: a split is one partition of group cross-validation, and is judged on all its held-out images together. The
interval of a mean gain is that of Student's t over the splits: these share images, so it speaks of the draw of labels,
not of other archives. "supervised_balanced" weighs classes by their frequency and knows no pool: what it gains is no
gain of unlabelled images.

"beside_supervised" and "beside_policy" are the tuned head and the policy where an encoder that was trained on the set's
own images without labels stands beside SqueezeNet (`pretrain.beside`), and a head looks at it where the lower 95 %
bound of what its out-of-fold log-loss gains is above zero. It is trained anew for each split on images outside of the
hold-out (of the brain set: on the pool alone, once), and its vectors are cached as well; --without-training leaves both
out.
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
CHOICES = {"chosen", "looked_beside"}
BATCH = 64
TRAININGS: dict[str, dict[str, Any]] = {
    "kermany": {"input_px": 56, "epochs": 10, "precision": "bf16", "modality": "xray"},
    "pneumoniamnist": {"input_px": 28, "epochs": 20, "modality": "xray"},
    "breastmnist": {"input_px": 28, "epochs": 100, "modality": "ultrasound"},
    "brain": {"input_px": 56, "epochs": 60, "precision": "bf16", "modality": "mri"},
}
"""Trainings of the encoder beside; epochs were set by time, to about half a minute of two cores, not by result."""


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


def own_features(name: str, seen: np.ndarray, seed: int, cache: Path) -> np.ndarray:
    """Vectors of all images by an encoder that was trained on those that may be seen, from the cache where it was.

    Args:
        name: Key of `TRAININGS`.
        seen: (n,) images to train on.
        seed: Of the random start and the training.
        cache: Folder.
    """
    import torch

    from scanloop.config import EncoderConfig
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.embedding.weights import load_weights
    from scanloop.pretraining.trainer import train_encoder

    path = cache / f"{name}-own-{seed}.npy"
    if not path.exists():
        images, _, _ = load(name)
        config = EncoderConfig.model_validate(TRAININGS[name] | {"seed": seed})
        encoder = new_encoder(config.encoder, seed)
        preprocess = load_weights(encoder, None, config.input_px)
        squares = np.stack([preprocess.square(images[row])[..., :1] for row in np.flatnonzero(seen)])
        grey = torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))
        train_encoder(encoder, grey, preprocess, config, cache / f"{name}-own-{seed}.checkpoint")
        np.save(path, Engine(encoder, preprocess, BATCH, "float32", [])(images))
    found: np.ndarray = np.load(path)
    return found


def side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Vectors of two encoders as one encoder of both gives them: each part of length 1."""
    parts = [part.astype(np.float64) for part in (first, second)]
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12) for part in parts])


def rows_of(vectors: Any, labels: np.ndarray, groups: np.ndarray, rows: np.ndarray, first: int | None = None) -> Any:
    """Labelled rows as the methods take them."""
    from scanloop.learning.dataset import Known

    return Known(rows, vectors[rows], labels[rows], groups[rows], np.ones(len(rows), bool), first)


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


def beside(known: Any, pool: Any, test: Any, seed: int) -> dict[str, np.ndarray]:
    """As `one_split`, of vectors by two encoders: the tuned head, the policy, and whether the head looks at both."""
    from scanloop.learning.heads import tune_head
    from scanloop.learning.semisupervised import policy

    classes = len(np.unique(known.labels))
    tuned = tune_head(known, classes, FOLDS, seed)
    choice = policy.choose(policy.gather(known, pool, classes, FOLDS, REPEATS, seed))
    names = [] if choice.name == policy.SUPERVISED else [choice.name]
    found = {
        name: head.logits(test.vectors).argmax(axis=1) for name, head in policy.heads(tuned, known, pool, names).items()
    }
    return {
        "beside_supervised": found[policy.SUPERVISED],
        "beside_policy": found[choice.name],
        "looked_beside": np.array(tuned.width is None),
    }


def hold_out(groups: np.ndarray, seed: int) -> np.ndarray:
    """Images (n,) of a split's held-out groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: int(HELD_OUT * len(names))])


def draw(
    vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, first: int | None = None
) -> tuple[Any, Any, Any]:
    """Labels, pool and hold-out of one split; no group stands in two of hold-out and the rest."""
    from scanloop.learning.dataset import Pool

    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups))
    held_out = np.isin(groups, names[: int(HELD_OUT * len(names))])
    order = rng.permutation(np.flatnonzero(~held_out))
    _, one_each = np.unique(groups[order], return_index=True)
    known = order[np.sort(one_each)[:LABELS]]
    rest = np.setdiff1d(order, known)
    test = np.flatnonzero(held_out)
    rows = [rows_of(vectors, labels, groups, part, first) for part in (known, test)]
    return rows[0], Pool(rest, vectors[rest], groups[rest]), rows[1]


def draws(name: str, vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, first: int | None) -> Any:
    """Labels, pool and hold-out of each part of a split, which is one, and of the brain set one for each fold."""
    from scanloop.learning.cross_validation import group_folds
    from scanloop.learning.dataset import Pool

    if name != "brain":
        yield draw(vectors, labels, groups, seed, first)
        return
    every = rows_of(vectors, labels, groups, np.flatnonzero(labels >= 0), first)
    unlabelled = np.flatnonzero(labels < 0)
    pool = Pool(unlabelled, vectors[unlabelled], groups[unlabelled])
    for cut in group_folds(every.labels, every.groups, FOLDS, 1, seed):
        test = every.take(cut.test)
        yield every.take(cut.train), pool.without(test.groups), test


def scores(name: str, splits: int, cache: Path, trained: bool) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Macro-F1 of each way in each split, in points, and what was chosen."""
    from sklearn.metrics import f1_score

    vectors, labels, groups = features(name, cache)
    brain, images = name == "brain", name.removesuffix("_causes")
    found: dict[str, list[float]] = {}
    chosen: dict[str, list[str]] = {}
    for seed in range(splits):
        answers: dict[str, list[np.ndarray]] = {}
        truth = np.concatenate([test.labels for _, _, test in draws(name, vectors, labels, groups, seed, None)])
        for known, pool, test in draws(name, vectors, labels, groups, seed, None):
            for way, values in one_split(known, pool, test, seed).items():
                answers.setdefault(way, []).append(values)
        if trained:
            seen = ~np.isin(groups, groups[labels >= 0]) if brain else ~hold_out(groups, seed)
            both = side_by_side(vectors, own_features(images, seen, 0 if brain else seed, cache))
            for known, pool, test in draws(name, both, labels, groups, seed, vectors.shape[1]):
                for way, values in beside(known, pool, test, seed).items():
                    answers.setdefault(way, []).append(values)
        for way in CHOICES & answers.keys():
            chosen.setdefault(way, []).extend(str(one) for one in answers.pop(way))
        for way, parts in answers.items():
            found.setdefault(way, []).append(100 * float(f1_score(truth, np.concatenate(parts), average="macro")))
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
    parser.add_argument("--without-training", action="store_true", help="SqueezeNet alone: minutes instead of an hour")
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "bench_learn", "n": arguments.splits, "labels": LABELS}
    for name in arguments.sets:
        started = time.perf_counter()
        found, chosen = scores(name, arguments.splits, arguments.cache, not arguments.without_training)
        base = found.pop("supervised")
        row: dict[str, Any] = {"supervised": round(float(np.mean(base)), 2)}
        row |= {way: gain(values, base) for way, values in found.items()}
        row |= {way: {one: made.count(one) for one in sorted(set(made))} for way, made in chosen.items()}
        row["seconds"] = round(time.perf_counter() - started, 1)
        figures[name] = row
        print(json.dumps({name: row}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
