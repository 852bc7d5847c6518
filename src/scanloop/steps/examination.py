"""What `evaluate` looks at beside the metrics: altered images, subgroups, gain from labels, and the map."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.shards import images_by_id, iterate_shards
from scanloop.artifacts import read_table
from scanloop.bundle.predict import Bundle
from scanloop.config import EvaluateConfig
from scanloop.embedding.cache import Embeddings, read_embeddings
from scanloop.errors import BundleError, TooFewLabelsError
from scanloop.evaluation.holdout import Measurement
from scanloop.evaluation.intervals import Resampling, group_index
from scanloop.evaluation.learning_curve import Cut, learning_curve
from scanloop.evaluation.plane import LEAST, neighbour_agreement, to_plane
from scanloop.evaluation.robustness import Subjects, draw, robustness
from scanloop.evaluation.subgroups import strata, subgroups
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known, known_rows
from scanloop.learning.heads import tune_head
from scanloop.types import Float, Groups, Labels

NO_EMBEDDINGS = "no embeddings were given to evaluate"
FOLDS = 3
"""Folds by which each head of the learning curve chooses its penalty."""

JUDGES = 4
"""Parts of the labelled images that judge in turn, where no test split does."""


@dataclass(frozen=True)
class Examined:
    """The deployed model and the images that it is looked at with.

    Attributes:
        config: What is looked at, and how.
        catalog: Artifact of `ingest`.
        manifest: Its manifest.
        model: The deployed model.
        bundle: Its directory.
        learnt: Slices that it learnt from.
        measurement: The hold-out.
        deployed: Arm of the deployed model.
        embeddings: Artifact of `embed`, or None.
        triage: Artifact of `triage`, or None.
    """

    config: EvaluateConfig
    catalog: Path
    manifest: pd.DataFrame
    model: Bundle
    bundle: Path
    learnt: frozenset[str]
    measurement: Measurement
    deployed: str
    embeddings: Path | None
    triage: Path | None

    @property
    def plan(self) -> Resampling:
        """Resamples, confidence and seed."""
        return Resampling(self.config.resamples, self.config.confidence, self.config.seed)

    def rows(self, slice_ids: Any) -> pd.DataFrame:
        """Rows of the manifest of these slices, in their order."""
        return self.manifest.set_index("slice_id", drop=False).loc[list(slice_ids)].reset_index(drop=True)


def bear_alterations(seen: Examined) -> dict[str, Any]:
    """Content of `robustness.json`: on the test split; without one, on images that the model did not learn from."""
    most, seed = seen.config.robustness.slices, seen.config.robustness.seed
    holdout = seen.measurement.holdout
    if not most:
        return {"reason": "left out: evaluate.robustness.slices is 0", "alterations": []}
    if seen.measurement.kind == "test":
        basis, ids, labels = "test", np.array(seen.measurement.slice_ids, dtype=object), holdout.labels
    else:
        everything = seen.manifest["slice_id"].to_numpy(dtype=object)
        unseen = everything[~np.isin(everything, sorted(seen.learnt))]
        basis, ids = ("unseen", unseen) if len(unseen) else ("learnt", everything)
        labels = None
    chosen = draw(len(ids), most, seed)
    rows = seen.rows(ids[chosen])
    images = images_by_id(seen.catalog, rows)
    subjects = Subjects(
        basis, rows["slice_id"].tolist(), rows["group_id"].to_numpy(dtype=str),
        None if labels is None else labels[chosen], [images[one] for one in rows["slice_id"]],
    )  # fmt: skip
    return robustness(seen.model.predict, subjects, seen.plan, seen.config.bins)


def part_holdout(seen: Examined) -> dict[str, Any]:
    """Content of `subgroups.json`: by what the catalog says of the images, by brightness, size and cluster."""
    rows = seen.rows(seen.measurement.slice_ids)
    brightness = {
        slice_id: float(image.mean())
        for _, ids, images in iterate_shards(seen.catalog, rows)
        for slice_id, image in zip(ids, images, strict=True)
    }
    more = {"brightness": pd.Series(brightness)}
    if {"height", "width"} <= set(rows) and rows["height"].notna().all():
        more["pixels"] = (rows["height"] * rows["width"]).set_axis(rows["slice_id"])
    if seen.triage is not None:
        more["cluster"] = read_table(seen.triage, "clusters.parquet").set_index("slice_id")["cluster"]
    path = seen.catalog / "attributes.parquet"
    attributes = read_table(seen.catalog, "attributes.parquet") if path.exists() else None
    parts = strata(rows, attributes, more)
    probabilities = seen.measurement.arms[seen.deployed]
    return subgroups(probabilities, seen.measurement.holdout, parts, seen.plan, seen.config.subgroups.min_groups)


def gain_from_labels(seen: Examined) -> dict[str, Any]:
    """Content of `learning_curve.json`, on labels known from the start: those bought were not drawn at random."""
    config = seen.config.learning_curve
    if seen.embeddings is None or not config.draws:
        reason = NO_EMBEDDINGS if seen.embeddings is None else "left out: evaluate.learning_curve.draws is 0"
        return {"reason": reason, "points": [], "gain": None}
    vectors, classes = read_embeddings(seen.embeddings), seen.model.classes
    train = known_rows(seen.manifest, None, classes, vectors, "train")
    train = train.take(draw(len(train.labels), config.slices, config.seed))
    try:
        cuts, known = _cuts(seen, train, vectors)
    except TooFewLabelsError as error:
        return {"reason": str(error), "points": [], "gain": None}

    def learn(rows: Labels, judged: Labels, seed: int) -> Float | None:
        part = known.take(rows)
        if len(np.unique(part.labels)) < len(classes):
            return None
        try:
            return tune_head(part, len(classes), FOLDS, seed).probabilities(known.vectors[judged])
        except TooFewLabelsError:
            return None

    found = learning_curve(cuts, learn, known.labels, known.groups, seen.plan, len(classes))
    return found | {"judged_by": seen.measurement.kind, "labelled": len(train.labels)}


def _cuts(seen: Examined, train: Known, vectors: Embeddings) -> tuple[list[list[Cut]], Known]:
    """Cuts of each draw and the rows that they are of: the test split judges, or parts of the labelled rows in turn."""
    draws, seed = seen.config.learning_curve.draws, seen.config.learning_curve.seed
    if seen.measurement.kind != "test":
        folds = group_folds(train.labels, train.groups, JUDGES, draws, seed)
        return [[(cut.train, cut.test) for cut in folds if cut.repeat == number] for number in range(draws)], train
    test = known_rows(seen.manifest, None, seen.model.classes, vectors, "test")
    first, both = len(train.labels), [train, test]
    columns = ("slice_ids", "vectors", "labels", "groups", "drawn")
    stacked: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in both]) for name in columns}
    joined = replace(train, **stacked)
    cut = (np.arange(first), np.arange(first, first + len(test.labels)))
    return [[cut]] * draws, joined


def lay_out(seen: Examined) -> tuple[dict[str, Any], pd.DataFrame]:
    """Content of `map.json` and of `map.parquet`: features before and after fine-tuning, laid out on a plane.

    Half of the map at most are images of the hold-out, which are drawn first; the others are any.
    """
    nothing = pd.DataFrame({"slice_id": [], "features": [], "x": [], "y": []})
    config = seen.config.map
    chosen = _on_the_map(seen)
    if seen.embeddings is None or len(chosen) < LEAST:
        reason = (
            NO_EMBEDDINGS if seen.embeddings is None else f"left out: fewer than {LEAST} images, or map.slices is 0"
        )
        return {"reason": reason, "features": {}}, nothing
    vectors: dict[str, Any] = {"frozen": read_embeddings(seen.embeddings).of(chosen)}
    if seen.model.about.get("training", {}).get("stage") != "frozen features":
        vectors["fine-tuned"] = _features(seen, chosen)
    tables, facts = [], {}
    for name, values in vectors.items():
        points = to_plane(values, config.method, config.seed)
        tables.append(pd.DataFrame({"slice_id": chosen, "features": name, "x": points[:, 0], "y": points[:, 1]}))
        facts[name] = {"neighbour_agreement": _agreement(seen, chosen, values)}
    learnt = seen.measurement.kind != "test"
    about = {"method": config.method, "images": len(chosen), "holdout_learnt_from": learnt, "features": facts}
    return about, pd.concat(tables, ignore_index=True)


def _on_the_map(seen: Examined) -> list[str]:
    most = seen.config.map.slices
    generator = np.random.default_rng(seen.config.map.seed)
    held_out = set(seen.measurement.slice_ids)
    ids = seen.manifest["slice_id"].to_numpy(dtype=object)
    inside = np.isin(ids, sorted(held_out))
    first = generator.choice(np.flatnonzero(inside), min(int(inside.sum()), most // 2), replace=False)
    others = np.flatnonzero(~inside)
    rest = generator.choice(others, min(len(others), most - len(first)), replace=False)
    return [str(one) for one in ids[np.sort(np.concatenate([first, rest]))]]


def _features(seen: Examined, chosen: list[str]) -> Float:
    """What the deployed network puts in front of its last layer, (n, d)."""
    rows = seen.rows(chosen)
    found: dict[str, Any] = {}
    for _, ids, images in iterate_shards(seen.catalog, rows):
        for start in range(0, len(ids), 32):
            squares = np.stack([seen.model.preprocess.square(image) for image in images[start : start + 32]])
            if (block := seen.model.engine.run_squares(squares).embeddings) is None:
                raise BundleError(f"{seen.bundle}: it gives no embeddings for the map; run the step retrain again")
            found |= dict(zip(ids[start : start + 32], block, strict=True))
    return np.stack([found[one] for one in chosen]).astype(np.float64)


def _agreement(seen: Examined, chosen: list[str], values: Any) -> Any:
    """How often neighbours among the hold-out's images on the map share a class."""
    place = {slice_id: row for row, slice_id in enumerate(seen.measurement.slice_ids)}
    rows = [number for number, slice_id in enumerate(chosen) if slice_id in place]
    held: Labels = np.array([place[chosen[row]] for row in rows], dtype=np.int64)
    holdout = seen.measurement.holdout
    groups: Groups = holdout.groups[held]
    if not rows or group_index(groups)[1] < 2:
        return None
    return neighbour_agreement(values[rows], holdout.labels[held], groups, seen.plan)
