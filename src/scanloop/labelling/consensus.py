"""Consensus and the quality of readers: advice from all readings and a model together. It decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import select

from scanloop.labelling.double_reading import NO_LABEL
from scanloop.labelling.schema import Adjudication, Reader, Reading, Task
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store
from scanloop.types import Float

CROWDLAB: dict[str, Any] = {"consensus_method": "majority_vote", "verbose": False, "return_weights": True}
SMALLEST = 1e-6
"""Probabilities are kept this far from 0 and 1: the temperature that ActiveLab fits takes their logarithm."""


@dataclass(frozen=True)
class Read:
    """What was read, as a matrix.

    Attributes:
        slice_ids: (n,) images that got a label from anybody and that the model says something of.
        readers: (m,) names.
        given: (n, m) class indices as float64, NaN where a reader gave no label.
        probabilities: (n, classes) of the model, which has not learnt from these images.
        classes: (classes,) names.
        adjudicated: (n,) whether somebody decided.
        disputed: (n,) whether the image waits for that.
        left_out: Images that were read, and lack a label or the model's word.
    """

    slice_ids: tuple[str, ...]
    readers: tuple[str, ...]
    given: Float
    probabilities: Float
    classes: tuple[str, ...]
    adjudicated: np.ndarray[Any, np.dtype[np.bool_]]
    disputed: np.ndarray[Any, np.dtype[np.bool_]]
    left_out: int


@dataclass(frozen=True)
class Consensus:
    """What all readings and the model say together.

    Attributes:
        images: slice_id, consensus, quality (probability that it is right, 0..1), readings, agreement (share of the
            readings that gave it), score (0..1, low: worth another reading), adjudicated, read_again.
        readers: reader, readings, shared (of these, on images that others read, too), quality (0..1; null where nobody
            read the same images), agreement (share of the shared ones that gave the consensus; null without any).
        model_weight: Weight of the model beside the readers'; None where nobody read the same images.
    """

    images: pd.DataFrame
    readers: pd.DataFrame
    model_weight: float | None


def gather(store: Store, probabilities: Mapping[str, Sequence[float]], classes: Sequence[str]) -> Read:
    """Readings that stand, as a matrix; "unsure" and "bad image" give no label.

    Args:
        store: The label store.
        probabilities: The model's, of each slice id.
        classes: Their order.
    """
    index = {name: number for number, name in enumerate(classes)}
    given: dict[int, dict[str, int]] = {}
    with store.reading() as session:
        names = {row.id: row.name for row in session.execute(select(Reader.id, Reader.name))}
        tasks = {row.id: row for row in session.execute(select(Task.id, Task.slice_id, Task.disputed))}
        decided = {*session.scalars(select(Adjudication.task_id))}
        read = session.execute(standing().order_by(Reading.task_id, Reading.id)).all()
    for row in read:
        if row.answer not in NO_LABEL and tasks[row.task_id].slice_id in probabilities:
            given.setdefault(row.task_id, {})[names[row.reader_id]] = index[row.answer]
    readers = tuple(sorted({name for labels in given.values() for name in labels}))
    ids = [tasks[task].slice_id for task in given]
    matrix = np.array([[labels.get(name, np.nan) for name in readers] for labels in given.values()], dtype=np.float64)
    said = np.array([probabilities[one] for one in ids], dtype=np.float64).reshape(len(ids), len(classes))
    return Read(
        tuple(ids),
        readers,
        matrix.reshape(len(ids), len(readers)),
        said,
        tuple(classes),
        np.array([task in decided for task in given], dtype=np.bool_),
        np.array([tasks[task].disputed for task in given], dtype=np.bool_),
        len({row.task_id for row in read}) - len(given),
    )


def find_consensus(read: Read, propose: int = 20) -> Consensus:
    """Consensus of each image, quality of it and of each reader, and the images most worth another reading.

    The consensus is what most readers say, and between equals the model's choice; docs/benchmarks.md says why not
    CROWDLAB's own. CROWDLAB (Goh, Tkachenko and Mueller 2022, arXiv:2210.06812) weighs readers by how far they agree
    with one another, and the model by how far it agrees with them; ActiveLab (Goh and Mueller 2023, arXiv:2301.11856)
    scores what another reading would add. Both as cleanlab has them. Where no two readers share an image there is
    nothing to weigh them by: the quality is then the model's probability of what was read.

    Args:
        read: The readings.
        propose: Images to propose for another reading, at most; none that is adjudicated, or waits for it.
    """
    if not read.slice_ids:
        return _nothing()
    from cleanlab.multiannotator import get_active_learning_scores, get_label_quality_multiannotator
    from cleanlab.rank import get_label_quality_scores

    probabilities = np.clip(read.probabilities, SMALLEST, 1.0)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    counts = (~np.isnan(read.given)).sum(axis=1)
    scores, _ = get_active_learning_scores(read.given, probabilities)
    if (counts > 1).any():
        found = get_label_quality_multiannotator(read.given, probabilities, **CROWDLAB)
        about, stats = found["label_quality"], found["annotator_stats"]
        consensus, quality = about["consensus_label"].to_numpy(), about["consensus_quality_score"].to_numpy()
        trust, weight = stats["annotator_quality"].reindex(range(len(read.readers))), float(found["model_weight"])
    else:
        consensus = np.nanmax(read.given, axis=1).astype(np.int64)
        quality = get_label_quality_scores(consensus, probabilities)
        trust, weight = pd.Series([None] * len(read.readers), dtype=object), None
    same = read.given == consensus[:, None]
    images = pd.DataFrame({
        "slice_id": read.slice_ids,
        "consensus": [read.classes[one] for one in consensus],
        "quality": quality,
        "readings": counts,
        "agreement": same.sum(axis=1) / counts,
        "score": scores,
        "adjudicated": read.adjudicated,
    })  # fmt: skip
    free = images.index[~(read.adjudicated | read.disputed)]
    wanted = images.loc[free].sort_values(["score", "slice_id"]).index[:propose]
    images["read_again"] = images.index.isin(wanted)
    return Consensus(images, _of_readers(read, same, trust), weight)


def _of_readers(read: Read, same: "np.ndarray[Any, np.dtype[np.bool_]]", trust: "pd.Series[Any]") -> pd.DataFrame:
    """What is told of readers; `same` (n, m) is whether their label is the consensus."""
    given = ~np.isnan(read.given)
    by_several = given.sum(axis=1) > 1
    shared, agreed = given[by_several].sum(axis=0), same[by_several].sum(axis=0)
    return pd.DataFrame({
        "reader": read.readers,
        "readings": given.sum(axis=0),
        "shared": shared,
        "quality": trust,
        "agreement": [right / n if n else None for right, n in zip(agreed, shared, strict=True)],
    })  # fmt: skip


def _nothing() -> Consensus:
    columns = ["slice_id", "consensus", "quality", "readings", "agreement", "score", "adjudicated", "read_again"]
    readers = pd.DataFrame(columns=["reader", "readings", "shared", "quality", "agreement"])
    return Consensus(pd.DataFrame(columns=columns), readers, None)
