"""Retrain: the classifier, from labels and what the pool teaches, as a calibrated bundle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from scanloop.archive.splits import assert_learnt_from_train, proven_manifest
from scanloop.artifacts import read_json, read_table, write_table
from scanloop.build import step
from scanloop.bundle.write import write_bundle
from scanloop.calibration.scaling import probabilities_of
from scanloop.config import RetrainConfig
from scanloop.embedding.cache import Embeddings, read_embeddings
from scanloop.embedding.encoders import read_encoder
from scanloop.evaluation.comparison import Holdout, metric_intervals
from scanloop.evaluation.intervals import Resampling
from scanloop.learning.dataset import LEAST_GROUPS_TRIED, Known, Pool, answers, known_rows, labels_end, require_classes
from scanloop.learning.describing import Shown, describe
from scanloop.learning.familiar import become_familiar
from scanloop.learning.honest import Honest, check_given_prior, make_honest
from scanloop.learning.points import check_default_point
from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.policy import SUPERVISED
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.learning.slices import Slices
from scanloop.learning.two_stage import Material, Trained, train
from scanloop.sections.pool import PseudoLabelConfig
from scanloop.types import Half, Interval


@dataclass(frozen=True)
class RetrainSummary:
    """What was learnt from, the stage kept, its calibrator's method and its out-of-fold macro-F1 with bounds."""

    labelled: int
    pseudo_labelled: int
    stage: str
    calibration: str
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float


@step("bundle")
def retrain(
    config: RetrainConfig,
    *,
    catalog: Path,
    encoder: Path,
    embeddings: Path,
    triage: Path,
    labels: Path,
    pseudo_labels: Path | None = None,
    output: Path,
) -> RetrainSummary:
    """Bundle of a classifier trained in two stages and calibrated out of fold.

    First a head on frozen features, then the last two blocks and the head with discriminative learning rates, from
    labels and promoted ones alone, since soft labels say what the frozen features know and would hold others back; the
    stage with the smaller out-of-fold log-loss is kept. The calibrator is chosen and fitted on out-of-fold logits of
    the randomly drawn labels alone, by repeated group cross-validation of the whole recipe, what the pool teaches
    included; so are the thresholds of the sets of classes. The shares of the classes in the pool are estimated and
    written down, and probabilities are served for them only where `target_prior` says so. The operating points are
    chosen out of fold as well. What the model is familiar with, and so when it abstains, is told in its own embedding.

    Args:
        config: Epochs, rates, folds.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        embeddings: Artifact of `embed`.
        triage: Artifact of `triage`: nothing is learnt from the images that it pushed out.
        labels: Labels bought since; with pseudo-labels those alone that came no later than what these learnt from.
        pseudo_labels: Artifact of `pseudo_label`; without it, the training is supervised.
        output: Directory for the bundle.

    Raises:
        TooFewLabelsError: A class has fewer than three labelled groups.
        ConfigError: `given_prior` does not name each class, or the default operating point cannot be had.
        LeakageError: A group crosses the splits, or a slice to learn from is held out.
    """
    net, preprocess = read_encoder(encoder)
    manifest, vectors = proven_manifest(catalog), read_embeddings(embeddings)
    facts = read_json(catalog / "catalog.json")
    check_given_prior(config, facts["classes"])
    check_default_point(config.operating_points, facts["classes"])
    pushed_out = read_table(triage, "pushed_out.parquet")
    bought = answers(labels, pushed_out, labels_end(pseudo_labels))
    known = known_rows(manifest, bought, facts["classes"], vectors, "train")
    require_classes(known, facts["classes"], LEAST_GROUPS_TRIED)
    pool, targets, recipe = _taught(pseudo_labels, pushed_out, manifest, vectors, facts["classes"])
    assert_learnt_from_train(manifest, [*known.slice_ids, *pool.slice_ids], "retrain")
    slices = Slices(catalog, manifest, preprocess)
    promotable = pool.slice_ids if recipe.thresholds is not None else pool.slice_ids[:0]  # no others are tuned on
    maps = [
        slices.maps(net, ids) if config.finetune_epochs else torch.empty(0) for ids in (known.slice_ids, promotable)
    ]
    material = Material(known, maps[0], pool, maps[1], targets, recipe, len(facts["classes"]))
    trained = train(net, material, config)
    honest = make_honest(
        trained, known, _unlabelled(manifest, known, vectors, pushed_out, config), facts["classes"], config
    )
    metrics = _metrics(known, honest, config)
    write_table(output, "out_of_fold.parquet", _out_of_fold_frame(known, trained, honest, facts["classes"]))
    learnt = _learnt_frame(material)
    write_table(output, "learnt.parquet", learnt)
    ids = (learnt["slice_id"].to_numpy(), pushed_out["slice_id"].to_numpy())
    shown = Shown(slices, *become_familiar(slices, trained.model.encoder, known, *ids, config))
    write_bundle(output, trained.model, describe(trained, honest, material, facts, shown, metrics, config))
    f1 = metrics["macro_f1"]
    return RetrainSummary(
        len(known.labels),
        int((targets.weights > 0).sum()),
        trained.stage,
        honest.calibrator.method,
        f1.value,
        f1.low,
        f1.high,
    )


def _taught(
    pseudo_labels: Path | None,
    pushed_out: pd.DataFrame,
    manifest: pd.DataFrame,
    vectors: Embeddings,
    classes: list[str],
) -> tuple[Pool, Targets, Recipe]:
    """Images of the pool that were drawn to be learnt from, without what was pushed out since, and how they teach."""
    table = pd.DataFrame({"slice_id": [], "soft": [], "weight": [], "promoted": []}, dtype=object)
    recipe = Recipe(SUPERVISED, None, PseudoLabelConfig())
    if pseudo_labels is not None:
        facts = read_json(pseudo_labels / "certificate.json")
        rule, method, least = facts["rule"], facts["recipe"]["method"], facts["recipe"]["thresholds"]
        thresholds = None if least is None else tuple(least.get(name, np.inf) for name in classes)
        recipe = Recipe(method, thresholds, PseudoLabelConfig.model_validate(rule))
        if recipe.learns_from_pool:
            table = read_table(pseudo_labels, "pseudo_labels.parquet").drop_duplicates("slice_id")
            table = table[table["weight"].notna() & ~table["slice_id"].isin(set(pushed_out["slice_id"]))]
    ids = table["slice_id"].tolist()
    groups = manifest.set_index("slice_id")["group_id"].loc[ids].to_numpy(dtype=object)
    soft = np.stack(table["soft"].tolist()) if ids else np.empty((0, len(classes)))
    promoted = np.flatnonzero(table["promoted"].to_numpy(dtype=bool))
    targets = Targets(soft.astype(np.float64), table["weight"].to_numpy(dtype=np.float64), promoted)
    return Pool(np.array(ids, dtype=object), vectors.of(ids), groups), targets, recipe


def _unlabelled(
    manifest: pd.DataFrame, known: Known, vectors: Embeddings, pushed_out: pd.DataFrame, config: RetrainConfig
) -> Half:
    """Embeddings of at most `prior_slices` of the pool, drawn by seed."""
    left_out = {*known.slice_ids, *pushed_out["slice_id"]}
    ids = manifest.loc[(manifest["split"] == "train") & ~manifest["slice_id"].isin(left_out), "slice_id"]
    drawn = ids.sample(min(len(ids), config.prior_slices), random_state=config.seed).sort_index()
    return vectors.of(drawn.tolist())


def _metrics(known: Known, honest: Honest, config: RetrainConfig) -> dict[str, Interval]:
    holdout = Holdout(known.judging[known.drawn], known.groups[known.drawn])
    probabilities = np.stack([probabilities_of(logits) for logits in honest.out_of_fold])
    return metric_intervals(probabilities, holdout, Resampling(seed=config.seed))


def _out_of_fold_frame(known: Known, trained: Trained, honest: Honest, classes: list[str]) -> pd.DataFrame:
    drawn = np.flatnonzero(known.drawn)
    fold_of = np.zeros((len(honest.out_of_fold), len(known.labels)), dtype=np.int64)
    for cut in trained.cuts:
        fold_of[cut.repeat, cut.test] = cut.number
    frames = [
        pd.DataFrame(
            {
                "slice_id": known.slice_ids[drawn],
                "group_id": known.groups[drawn],
                "repeat": repeat,
                "fold": fold_of[repeat, drawn],
                "label": [classes[label] for label in known.judging[drawn]],
                "logits": list(logits),
            }
        )
        for repeat, logits in enumerate(honest.out_of_fold)
    ]
    return pd.concat(frames, ignore_index=True)


def _learnt_frame(material: Material) -> pd.DataFrame:
    """Every slice that the model learnt from: `promote` holds them against the hold-out."""
    known, rows = material.known, np.flatnonzero(material.targets.weights > 0)
    return pd.DataFrame({
        "slice_id": [*known.slice_ids, *material.pool.slice_ids[rows]],
        "group_id": [*known.groups, *material.pool.groups[rows]],
        "source": ["labelled"] * len(known.slice_ids) + ["pseudo_labelled"] * len(rows),
        "label_source": known.sources() + [None] * len(rows),
    })  # fmt: skip
