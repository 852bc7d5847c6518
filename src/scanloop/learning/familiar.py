"""What a trained model is familiar with: its exemplars, and when it must abstain, in its own embedding."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from scanloop.bundle.abstention import LEARNT, UNSEEN, Abstention, Familiar, fit_abstention
from scanloop.bundle.exemplars import Exemplars, new_exemplars
from scanloop.calibration.strangeness import unit_rows
from scanloop.config import RetrainConfig
from scanloop.embedding.encoders import Encoder
from scanloop.grouping import one_a_group
from scanloop.learning.dataset import Known
from scanloop.learning.slices import Slices
from scanloop.types import Groups, Labels


@dataclass(frozen=True)
class Drawn:
    """Images to be familiar with, one a group.

    Attributes:
        slice_ids: (m,) ids.
        reference: (m,) whether new images are compared with it; the others calibrate.
        unseen: Whether the model learnt from none of those that calibrate.
    """

    slice_ids: Groups
    reference: npt.NDArray[np.bool_]
    unseen: bool


def become_familiar(
    slices: Slices, encoder: Encoder, known: Known, learnt: Groups, left_out: Groups, config: RetrainConfig
) -> tuple[Exemplars, Abstention]:
    """Exemplars of a trained model, and the rule by which it abstains.

    Args:
        slices: Of the catalog.
        encoder: Of the trained model.
        known: Labelled rows that it learnt from.
        learnt: Ids of all slices that it learnt from, those of the pool included.
        left_out: Ids of the pool that must teach nothing: `triage` pushed them out.
        config: How many, at most, and what is promised.
    """
    shown = draw_exemplars(known, config.exemplars, config.seed)
    train = slices.manifest[(slices.manifest["split"] == "train") & ~slices.manifest["slice_id"].isin(set(left_out))]
    drawn = draw_familiar(
        train, learnt, config.abstention.familiar_groups, config.abstention.strange_share, config.seed
    )
    ids = [str(one) for one in (*known.slice_ids[shown], *drawn.slice_ids)]
    vectors = slices.embeddings(encoder, ids)
    exemplars = new_exemplars(known.slice_ids[shown], known.labels[shown], vectors[: len(shown)])
    familiar = Familiar(
        drawn.slice_ids.astype(str), unit_rows(vectors[len(shown) :]).astype(np.float16), drawn.reference
    )
    rule = config.abstention
    words = UNSEEN if drawn.unseen else LEARNT
    return exemplars, fit_abstention(familiar, rule.strange_share, rule.least_confidence, words)


def draw_exemplars(known: Known, most: int, seed: int) -> Labels:
    """Rows of labelled images to show, sorted: all, or so many, drawn class by class in turn.

    Args:
        known: Labelled rows.
        most: Rows at most.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(known.labels))
    turn = pd.Series(known.labels[order]).groupby(known.labels[order]).cumcount().to_numpy()
    rows: Labels = np.sort(order[np.argsort(turn, kind="stable")[:most]])
    return rows


def draw_familiar(train: pd.DataFrame, learnt: Groups, most: int, share: float, seed: int) -> Drawn:
    """One image of each of at most so many groups; half of the groups, which nothing was learnt from, calibrate.

    Where fewer of such groups are there than a promise needs, half of all calibrate.

    Args:
        train: Rows of the manifest.
        learnt: Ids of the slices that the model learnt from.
        most: Groups at most.
        share: Of further images that may be called strange.
        seed: Of the draw.
    """
    rows = train.sort_values("slice_id", ignore_index=True)
    seen = set(rows.loc[rows["slice_id"].isin(set(learnt)), "group_id"])
    generator = np.random.default_rng(seed)
    picked = rows.iloc[generator.permutation(one_a_group(rows["group_id"].to_numpy(dtype=object), generator))[:most]]
    free = ~picked["group_id"].isin(seen).to_numpy()
    unseen = int(free.sum()) >= math.ceil(1 / share)
    candidates = np.flatnonzero(free) if unseen else np.arange(len(picked))
    reference = np.ones(len(picked), dtype=bool)
    reference[candidates[: len(picked) // 2]] = False
    order = np.argsort(picked["slice_id"].to_numpy(dtype=str), kind="stable")
    return Drawn(picked["slice_id"].to_numpy(dtype=object)[order], reference[order], unseen)
