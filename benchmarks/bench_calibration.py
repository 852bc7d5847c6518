"""Whether probabilities mean what they say on official test sets: each map before and after, and what remains.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_calibration.py

Frozen SqueezeNet features at 224 pixels, cached below --cache as by bench_learn. A tuned head learns from the official
training part of Kermany's chest X-rays, PneumoniaMNIST and BreastMNIST: from all labels, and from 100 drawn at random,
one a group, in so many --draws. Training images in a group with a test image are left out. Calibrators come from
group cross-validation of the head, as in the step retrain, and are judged on the official test:

"none" is the head as it is, "pooled" a temperature on the logits of all folds as they come, each head with a penalty
of its own (what was done before), "auto" what the step serves. "prior_pool" and "prior_oracle" correct "auto" for the
shares of the classes in the pool (estimated) and in the test (from its labels): what a change of shares alone explains.
"half_of_test" is an affine map fitted on one half of the test's groups and judged on the other, both ways: what any
monotone map could still mend.

"like_the_labels" is "auto" on images like the labels: the unlabelled rest of the training part, or with all labels the
nested out-of-fold probabilities. Where its excess is small and the test's is not, the test differs from the training
part; "recall" says how: the share of each class that is found there and here.

"excess" is the ECE less the mean ECE of a perfect model with these probabilities. Intervals over draws are Student's t;
they share the test, so they speak of the draw of labels. With all labels, intervals resample the test's groups.
Coverage is of the sets of classes with alpha 0.1: on the test, and on the unlabelled rest of the training part,
which is like the labels.
"""

import argparse
import json
import re
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from learning_sets import data_dir, features, rows_of
from scipy import stats

LABELS, FOLDS, ALPHA = 100, 5, 0.1
SETS = ("kermany", "pneumoniamnist", "breastmnist")
FILES = {"pneumoniamnist": "pneumoniamnist_rebuilt", "breastmnist": "breastmnist_resaved"}


def official_parts(name: str) -> np.ndarray:
    """Part of each image, "train", "val" or "test", in the order of bench_learn's features."""
    if name == "kermany":
        parts: dict[bytes, str] = {}  # each byte string once, in the order of load_tar
        with tarfile.open(data_dir() / "kermany_cxr_224.tar") as tar:
            for one in sorted((one for one in tar if re.search(r"\.jpe?g$", one.name)), key=lambda one: one.name):
                payload = tar.extractfile(one).read()  # type: ignore[union-attr]
                parts.setdefault(payload, "test" if "test" in one.name.split("/") else "train")
        return np.array(list(parts.values()))
    arrays = np.load(data_dir() / "medmnist" / f"{FILES[name]}.npz")
    return np.repeat(("train", "val", "test"), [len(arrays[f"{part}_labels"]) for part in ("train", "val", "test")])


def half_of_test(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities by an affine map that the other half of the groups fitted."""
    from scanloop.calibration.maps import affine

    names = np.random.default_rng(seed).permutation(np.unique(groups))
    first = np.isin(groups, names[: len(names) // 2])
    probabilities = np.empty_like(logits)
    for part in (first, ~first):
        probabilities[part] = affine(logits[~part], labels[~part])(logits[part])
    return probabilities


def one_draw(known: Any, rest: Any, test: Any, repeats: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Probabilities of the test by map, and what else was found."""
    from scanloop.calibration.conformal import fit_conformal, one_a_group
    from scanloop.calibration.maps import FITS, temperature
    from scanloop.calibration.prior import class_shares, prior_shift
    from scanloop.calibration.scaling import probabilities_of
    from scanloop.learning.calibrating import GROUPS_OF_ISOTONIC, calibrate
    from scanloop.learning.honest import pool_shares
    from scanloop.studies.probing import out_of_fold

    tuned, found = out_of_fold(known, 2, FOLDS, repeats, seed)
    logits, truth = tuned.head.logits(test.vectors), np.tile(known.labels, repeats)
    stacked, raw = found.logits.reshape(-1, 2), (found.logits * found.temperatures[:, :, None]).reshape(-1, 2)
    few = len(np.unique(known.groups)) < GROUPS_OF_ISOTONIC
    said = {
        name: FITS[name](stacked, truth)(logits / tuned.temperature)
        for name in FITS
        if not (few and name == "isotonic")
    }
    said["none"] = probabilities_of(logits)
    said["pooled"] = temperature(raw, truth)(logits)
    kept = calibrate(found, "auto", seed=seed)
    served = kept.calibrator.rescaled(tuned.temperature)
    said["auto"] = served(logits)
    labelled = class_shares(known.labels, 2)
    pool = pool_shares(tuned, known, rest.vectors, labelled) if len(rest.labels) else labelled
    said["prior_pool"] = prior_shift(said["auto"], labelled, pool)
    said["prior_oracle"] = prior_shift(said["auto"], labelled, class_shares(test.labels, 2))
    said["half_of_test"] = half_of_test(logits, test.labels, test.groups, seed)
    rows = one_a_group(known.groups, seed)
    own = probabilities_of(kept.logits.reshape(-1, 2)).reshape(kept.logits.shape)
    facts: dict[str, Any] = {"chosen": served.method, "share_labelled": labelled[1], "share_pool_estimated": pool[1]}
    like, truth_like = (
        (served(tuned.head.logits(rest.vectors)), rest.labels) if len(rest.labels) else (own[0], known.labels)
    )
    facts["like_the_labels"] = judged(like, truth_like, seed)
    for where, probabilities, real in (("like", like, truth_like), ("test", said["auto"], test.labels)):
        for one in (0, 1):
            facts[f"recall_{one}_{where}"] = float((probabilities.argmax(axis=1) == one)[real == one].mean())
    for kind, per_class in (("marginal", False), ("per_class", True)):
        conformal = fit_conformal(own[:, rows], known.labels[rows], ALPHA, per_class=per_class)
        for where, part in (("test", test), ("rest", rest)):
            if len(part.labels):
                sets = conformal.sets(served(tuned.head.logits(part.vectors)))
                hit = sets[np.arange(len(sets)), part.labels]
                facts[f"coverage_{kind}_{where}"] = float(hit.mean())
                facts[f"worst_class_coverage_{kind}_{where}"] = min(
                    float(hit[part.labels == one].mean()) for one in (0, 1)
                )
                facts[f"set_size_{kind}_{where}"] = float(sets.sum(axis=1).mean())
    return said, facts


def judged(probabilities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Errors of one map on the test."""
    from scanloop.evaluation.calibration import classwise_error, equal_mass_error, log_loss, noise_floor
    from scanloop.evaluation.metrics import expected_calibration_error

    noise = noise_floor(probabilities, seed=seed)
    ece = float(expected_calibration_error(probabilities, labels)[0])
    return {
        "ece": ece,
        "noise": float(noise.mean()),
        "noise_high": float(np.quantile(noise, 0.95)),
        "excess": ece - float(noise.mean()),
        "ece_equal_mass": equal_mass_error(probabilities, labels),
        "classwise_ece": classwise_error(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
    }


def summed(values: list[float]) -> list[float]:
    """Mean and the bounds of its 95 % interval over draws."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]


def kept(path: Path | None, make: Callable[[], Any]) -> Any:
    """What a killed run left in a file, or what is made and left there now."""
    if path is not None and path.exists():
        return json.loads(path.read_text())
    made = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made))
    return made


def drawn_labels(
    parts: tuple[Any, ...], train: np.ndarray, test: Any, draws: int, resume: Path | None
) -> dict[str, Any]:
    """Figures with 100 labels; each draw is kept below `resume`."""
    vectors, labels, groups = parts

    def one(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        order = np.random.default_rng(seed).permutation(np.flatnonzero(train))
        _, first = np.unique(groups[order], return_index=True)
        rows = order[np.sort(first)[:LABELS]]
        rest = rows_of(vectors, labels, groups, order[~np.isin(groups[order], groups[rows])])
        said, facts = one_draw(rows_of(vectors, labels, groups, rows), rest, test, 2, seed)
        errors = {name: judged(probabilities, test.labels, seed) for name, probabilities in said.items()}
        errors["like_the_labels"] = facts.pop("like_the_labels")
        return errors, facts | {"share_pool": float(rest.labels.mean())}

    results = [kept(resume and resume / f"{seed}.json", partial(one, seed)) for seed in range(draws)]
    by_map = {name: [errors[name] for errors, _ in results] for name in results[0][0]}
    everything = [facts for _, facts in results]
    figures: dict[str, Any] = {
        name: {key: summed([row[key] for row in rows]) for key in rows[0]} for name, rows in by_map.items()
    }
    chosen = [facts.pop("chosen") for facts in everything]
    figures["chosen"] = {name: chosen.count(name) for name in sorted(set(chosen))}
    return figures | {key: summed([facts[key] for facts in everything]) for key in everything[0]}


def all_labels(parts: tuple[Any, ...], train: np.ndarray, test: Any) -> dict[str, Any]:
    """Figures with every label of the training part."""
    from scanloop.evaluation.comparison import Holdout, metric_interval
    from scanloop.evaluation.intervals import Resampling

    known, nothing = rows_of(*parts, np.flatnonzero(train)), rows_of(*parts, np.empty(0, int))
    said, facts = one_draw(known, nothing, test, 1, 0)
    figures: dict[str, Any] = {}
    for name, probabilities in said.items():
        interval = metric_interval("ece", probabilities[None], Holdout(test.labels, test.groups), Resampling(500))
        figures[name] = {key: round(value, 4) for key, value in judged(probabilities, test.labels, 0).items()}
        figures[name]["ece_interval"] = [round(interval.low, 4), round(interval.high, 4)]
    del figures["prior_pool"], facts["share_pool_estimated"]
    return figures | {"labels": len(known.labels)} | facts


def main() -> None:
    """Measure each set in turn; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--labels", nargs="+", choices=("100", "all"), default=("100", "all"))
    parser.add_argument("--resume", type=Path, help="folder in which draws are kept; killed, the same command goes on")
    parser.add_argument("--cache", type=Path, default=Path("runs/.features"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "bench_calibration", "n": arguments.draws, "labels": LABELS}
    for name in arguments.sets:
        started = time.perf_counter()
        vectors, labels, groups = features(name, arguments.cache)
        labels, part = labels.astype(np.int64), official_parts(name)
        inside = part == "test"
        train = (part == "train") & ~np.isin(groups, groups[inside])
        test = rows_of(vectors, labels, groups, np.flatnonzero(inside))
        row: dict[str, Any] = {
            "test_images": int(inside.sum()),
            "test_groups": len(np.unique(test.groups)),
            "train_images": int(train.sum()),
            "left_out_of_train": int(((part == "train") & ~train).sum()),
            "positives_train": round(float(labels[train].mean()), 4),
            "positives_test": round(float(test.labels.mean()), 4),
        }
        if "100" in arguments.labels:
            resume = arguments.resume and arguments.resume / name
            row["100_labels"] = drawn_labels((vectors, labels, groups), train, test, arguments.draws, resume)
        if "all" in arguments.labels:
            row["all_labels"] = all_labels((vectors, labels, groups), train, test)
        row["seconds"] = round(time.perf_counter() - started, 1)
        figures[name] = row
        print(json.dumps({name: row}), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
