"""The choice of a calibrator: by evidence beyond noise, nested, and never from a row's own label or a bought one."""

from dataclasses import replace

import numpy as np
import pytest
from learning_data import new_known
from scipy.special import expit, logit, softmax

from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.maps import FITS, MAPS
from scanloop.calibration.prior import class_shares
from scanloop.config import RetrainConfig
from scanloop.errors import ConfigError
from scanloop.evaluation.calibration import log_loss
from scanloop.learning.calibrating import Calibrated, OutOfFold, calibrate, choose, paired_gain
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.heads import tune_head
from scanloop.learning.honest import Honest, check_given_prior, make_honest, pool_shares
from scanloop.learning.two_stage import Trained


def found(truth: np.ndarray, logits: np.ndarray, repeats: int = 1, seed: int = 0, bought: int = 0) -> OutOfFold:
    """Logits (n, 2) with labels drawn from the share `truth` of the second class, two rows a group."""
    n = len(truth)
    draw = np.random.default_rng(seed)
    labels, groups = (draw.random(n) < truth).astype(np.int64), np.arange(n) // 2
    cuts = group_folds(labels, groups, 5, repeats, seed)
    noisy = np.stack([logits + 0.01 * draw.normal(size=logits.shape) for _ in range(repeats)])
    return OutOfFold(noisy, np.full((repeats, n), 2.0), labels, groups, np.arange(n) < n - bought, cuts)


def two(scores: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(scores), scores], axis=1)


def honest_scores(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n) * 1.5


def test_a_temperature_is_kept_where_it_is_all_that_is_wrong() -> None:
    kept = [
        calibrate(found(expit(scores), two(scores * 3), seed=seed)).calibrator.method
        for seed in range(10)
        for scores in [honest_scores(300, seed)]
    ]
    assert kept.count("temperature") >= 7


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("affine", lambda scores: expit(scores - 1.5)),
        ("beta", lambda scores: expit(0.3 * np.log(expit(scores)) - 2.5 * np.log(expit(-scores)) - 0.5)),
        ("isotonic", lambda scores: np.select([scores < -1, scores < 1], [0.02, 0.5], 0.98)),
    ],
)
def test_a_richer_map_is_chosen_where_the_truth_has_its_shape(name: str, truth: object) -> None:
    scores = honest_scores(4000)
    chosen = calibrate(found(truth(scores), two(scores)))
    assert chosen.calibrator.method == name
    gain = chosen.gains[name]
    assert gain["gain"] > gain["standard_error"] > 0
    assert chosen.gains["temperature"] == {"gain": 0.0, "standard_error": 0.0}
    assert chosen.candidates[name]["log_loss"] < chosen.candidates["temperature"]["log_loss"]


def test_isotonic_is_not_tried_below_two_hundred_groups_unless_it_is_asked_for() -> None:
    scores = honest_scores(398)
    step = np.where(scores < 0, 0.05, 0.95)
    assert set(calibrate(found(step, two(scores))).candidates) == {"none", *MAPS} - {"isotonic"}
    assert set(calibrate(found(step, two(scores)), "isotonic").candidates) == {"none", *MAPS}
    more = honest_scores(400)
    assert "isotonic" in calibrate(found(np.where(more < 0, 0.05, 0.95), two(more))).candidates


def test_before_is_what_the_heads_said_without_any_temperature() -> None:
    scores = honest_scores(200)
    rows = found(expit(scores), two(scores))  # each divided by a temperature of 2 already
    measured = calibrate(rows, "temperature").candidates["none"]
    assert measured["log_loss"] == pytest.approx(log_loss(softmax(rows.logits[0] * 2, axis=1), rows.labels))
    raw = calibrate(rows, "none")
    np.testing.assert_allclose(raw.logits, rows.logits * 2)
    assert raw.calibrator == Calibrator("none")


def test_each_fold_is_mapped_by_what_the_other_folds_chose_and_fitted() -> None:
    scores = honest_scores(240)
    rows = found(expit(scores - 1.5), two(scores), repeats=2, bought=40)
    mapped = calibrate(rows).logits
    for cut in rows.cuts:
        others = np.setdiff1d(np.flatnonzero(rows.judges), cut.test)
        inside = [other for other in rows.cuts if other.repeat == cut.repeat and other.number != cut.number]
        losses = {name: np.empty(240) for name in ("temperature", "affine", "beta")}
        for other in inside:
            fitted, judged = np.setdiff1d(others, other.test), np.intersect1d(others, other.test)
            for name, values in losses.items():
                said = FITS[name](rows.logits[cut.repeat, fitted], rows.labels[fitted])(rows.logits[cut.repeat, judged])
                values[judged] = -np.log(said[np.arange(len(judged)), rows.labels[judged]])
        name = choose({name: values[others] for name, values in losses.items()}, rows.groups[others])
        expected = FITS[name](rows.logits[cut.repeat, others], rows.labels[others])
        np.testing.assert_allclose(
            softmax(mapped[cut.repeat, cut.test], axis=1), expected(rows.logits[cut.repeat, cut.test]), atol=1e-12
        )


def test_neither_a_rows_own_label_nor_a_bought_one_reaches_its_probability() -> None:
    scores = honest_scores(240)
    rows = found(expit(scores - 1.5), two(scores), bought=40)
    mapped = calibrate(rows).logits
    bought_wrong = replace(rows, labels=np.where(rows.judges, rows.labels, 1 - rows.labels))
    np.testing.assert_array_equal(calibrate(bought_wrong).logits, mapped)
    assert calibrate(bought_wrong).calibrator == calibrate(rows).calibrator
    own_wrong, test = rows.labels.copy(), rows.cuts[0].test
    own_wrong[test] = 1 - own_wrong[test]
    np.testing.assert_array_equal(calibrate(replace(rows, labels=own_wrong)).logits[0, test], mapped[0, test])
    assert not np.allclose(calibrate(replace(rows, labels=own_wrong)).logits, mapped)


def test_folds_whose_heads_have_other_scales_do_not_spoil_the_temperature() -> None:
    """Every second fold's logits are thirty times as large, and its head knows it: the mixture tells nobody's scale."""
    scores = honest_scores(1000)
    rows = found(expit(scores), two(scores))
    scale = np.ones((1, 1000))
    for cut in rows.cuts[::2]:
        scale[0, cut.test] = 30.0
    mended = calibrate(replace(rows, temperatures=scale), "temperature").calibrator.temperature
    pooled = FITS["temperature"]((rows.logits * scale[:, :, None])[0], rows.labels).temperature
    assert mended == pytest.approx(1, abs=0.15)
    assert pooled > 2


def test_the_standard_error_of_a_gain_is_that_of_groups_not_rows() -> None:
    draw = np.random.default_rng(3)
    of_groups = draw.normal(size=50)
    base, groups = np.repeat(of_groups, 8), np.repeat(np.arange(50), 8)
    mean, error = paired_gain(base, np.zeros(400), groups)
    assert mean == pytest.approx(of_groups.mean())
    assert error == pytest.approx(of_groups.std(ddof=1) / np.sqrt(50))
    _, alone = paired_gain(base, np.zeros(400), np.arange(400))
    assert alone < error / 2


N = 600


def trained() -> tuple[Trained, object]:
    known = new_known(n=N, per_group=1)
    tuned = tune_head(known, 2, 5, 0)
    cuts = group_folds(known.labels, known.groups, 5, 1, 0)
    rows = OutOfFold(
        tuned.out_of_fold[None] / tuned.temperature,
        np.full((1, N), tuned.temperature),
        known.labels,
        known.groups,
        known.drawn,
        cuts,
    )
    calibrated: Calibrated = calibrate(rows, "affine")
    return Trained(None, "frozen features", tuned, calibrated, known.drawn, cuts, {}), known


def drawn_pool(share: float, n: int = 6000) -> np.ndarray:
    """Embeddings like those of `new_known`, of which this share is of the second class."""
    draw = np.random.default_rng(5)
    labels = (draw.random(n) < share).astype(int)
    return (draw.normal(size=(n, 6)) + np.eye(2, 6)[labels] * 2).astype(np.float16)


def test_the_shares_of_a_pool_are_estimated_and_only_written_down_unless_they_are_asked_for() -> None:
    model, known = trained()
    pool = drawn_pool(0.8)
    plain = make_honest(model, known, pool, ["a", "b"], RetrainConfig())
    assert plain.prior["pool"]["b"] == pytest.approx(0.8, abs=0.05)
    assert plain.prior["served"] == plain.prior["labelled"] == {"a": 0.5, "b": 0.5}
    assert plain.calibrator == model.calibrator
    moved: Honest = make_honest(model, known, pool, ["a", "b"], RetrainConfig(target_prior="pool"))
    assert moved.prior["served"] == plain.prior["pool"]
    logits = model.tuned.head.logits(pool)
    assert plain.calibrator(logits)[:, 1].mean() < moved.calibrator(logits)[:, 1].mean() - 0.02
    assert moved.calibrator(logits)[:, 1].mean() == pytest.approx(0.8, abs=0.05)
    shift = logit(moved.calibrator(logits)[:, 1]) - logit(plain.calibrator(logits)[:, 1])
    share = moved.prior["pool"]["b"]
    np.testing.assert_allclose(shift, np.log(share / (1 - share)), atol=1e-6)
    np.testing.assert_allclose(
        np.diff(moved.out_of_fold - plain.out_of_fold)[..., 0], np.log(share / (1 - share)), atol=1e-9
    )


def test_a_given_prior_is_served_and_one_that_names_other_classes_is_refused() -> None:
    model, known = trained()
    given = RetrainConfig(target_prior="given", given_prior={"b": 0.9, "a": 0.1})
    honest = make_honest(model, known, drawn_pool(0.5, 0), ["a", "b"], given)
    np.testing.assert_allclose(honest.calibrator.prior, np.log([0.2, 1.8]))
    assert (honest.prior["pool"], honest.prior["pool_images"]) == (None, 0)
    with pytest.raises(ConfigError, match="each of x, y"):
        check_given_prior(given, ["x", "y"])
    check_given_prior(given, ["a", "b"])


@pytest.mark.parametrize(
    "values",
    [
        {"target_prior": "given"},
        {"given_prior": {"a": 1.0}},
        {"target_prior": "given", "given_prior": {"a": 0.5, "b": 0.6}},
        {"target_prior": "given", "given_prior": {"a": 0.0, "b": 1.0}},
    ],
)
def test_shares_that_are_no_prior_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="given_prior"):
        RetrainConfig(**values)


def test_the_sets_stand_on_one_image_of_each_group_and_on_the_nested_probabilities() -> None:
    model, known = trained()
    honest = make_honest(model, replace_groups(known), drawn_pool(0.5), ["a", "b"], RetrainConfig(seed=3))
    assert sum(honest.conformal.n) == N // 2
    assert honest.conformal.per_class
    everyone = make_honest(model, known, drawn_pool(0.5), ["a", "b"], RetrainConfig(conformal_alpha=0.2))
    assert sum(everyone.conformal.n) == N
    sets = everyone.conformal.sets(softmax(everyone.out_of_fold[0], axis=1))
    assert sets[np.arange(N), known.labels].mean() >= 0.78


def replace_groups(known: object) -> object:
    return replace(known, groups=np.arange(N) // 2)


def test_a_class_that_was_not_drawn_has_a_share_above_zero() -> None:
    np.testing.assert_allclose(class_shares(np.array([0, 0, 1]), 3), np.array([2, 1, 0.5]) / 3.5)


def test_the_shares_found_do_not_depend_on_those_of_the_labels() -> None:
    known = trained()[1]
    fewer = known.take((known.labels == 0) | (np.arange(N) % 3 == 0))
    tuned = tune_head(fewer, 2, 5, 0)
    pool = drawn_pool(0.6)
    labelled = class_shares(fewer.labels, 2)
    assert labelled[1] < 0.3
    assert pool_shares(tuned, fewer, pool, labelled)[1] == pytest.approx(0.6, abs=0.07)
