"""Metrics against scikit-learn, against slow plain loops, and under resampling."""

import time

import numpy as np
import pytest
from sklearn import metrics as reference

from scanloop.evaluation.comparison import Holdout
from scanloop.evaluation.curves import curves
from scanloop.evaluation.metrics import (
    accuracy,
    auroc,
    bin_of,
    brier,
    confusion,
    expected_calibration_error,
    macro_f1,
    measure,
    metrics_by_name,
    precision,
    recall,
    reliability,
)
from scanloop.types import Float, Labels


def draw(n: int, classes: int, seed: int = 0, digits: int = 2) -> tuple[Float, Labels]:
    """Predictions that are right more often than not; rounding makes ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) * 1.5 + 1.5 * np.eye(classes)[labels]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), digits) + 1e-9
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def draw_weights(n: int, rows: int, seed: int = 1) -> Float:
    return np.random.default_rng(seed).integers(0, 4, size=(rows, n)).astype(float)


def test_weighted_metrics_equal_scikit_learns_with_sample_weights() -> None:
    probabilities, labels = draw(200, 3)
    predicted = probabilities.argmax(axis=1)
    weights = draw_weights(200, 5)
    one_hot = np.eye(3)[labels]
    for row, values in enumerate(
        zip(
            accuracy(probabilities, labels, weights),
            macro_f1(probabilities, labels, weights),
            auroc(probabilities, labels, weights),
            brier(probabilities, labels, weights),
            confusion(probabilities, labels, weights),
            precision(probabilities, labels, weights),
            recall(probabilities, labels, weights),
            strict=True,
        )
    ):
        drawn = weights[row]
        areas = [reference.roc_auc_score(one_hot[:, c], probabilities[:, c], sample_weight=drawn) for c in range(3)]
        scores = reference.precision_recall_fscore_support(labels, predicted, sample_weight=drawn, zero_division=0)
        assert values[0] == pytest.approx(reference.accuracy_score(labels, predicted, sample_weight=drawn))
        assert values[1] == pytest.approx(reference.f1_score(labels, predicted, average="macro", sample_weight=drawn))
        assert values[2] == pytest.approx(np.mean(areas))
        squares = [np.average((probabilities[:, c] - one_hot[:, c]) ** 2, weights=drawn) for c in range(3)]
        assert values[3] == pytest.approx(np.sum(squares))
        np.testing.assert_allclose(values[4], reference.confusion_matrix(labels, predicted, sample_weight=drawn))
        np.testing.assert_allclose(values[5], scores[0])
        np.testing.assert_allclose(values[6], scores[1])


def test_two_classes_give_scikit_learns_auroc_and_twice_its_brier_score() -> None:
    probabilities, labels = draw(150, 2)
    found = measure(probabilities, labels)
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, probabilities[:, 1]))
    assert found["brier"] == pytest.approx(2 * reference.brier_score_loss(labels, probabilities[:, 1]))


def test_a_weight_of_two_counts_an_image_twice() -> None:
    probabilities, labels = draw(60, 3, seed=3)
    weights = draw_weights(60, 1, seed=4)
    times = weights[0].astype(int)
    repeated, repeated_labels = np.repeat(probabilities, times, axis=0), np.repeat(labels, times)
    for name, metric in metrics_by_name().items():
        assert metric(probabilities, labels, weights)[0] == pytest.approx(metric(repeated, repeated_labels, None)[0]), (
            name
        )


def test_the_order_of_the_images_does_not_matter() -> None:
    probabilities, labels = draw(80, 4, seed=5)
    order = np.random.default_rng(0).permutation(80)
    shuffled = measure(probabilities[order], labels[order])
    assert measure(probabilities, labels) == pytest.approx(shuffled)


def test_ece_equals_a_plain_loop_over_bins() -> None:
    probabilities, labels = draw(300, 2, seed=6)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for bins in (5, 10, 15):
        expected = 0.0
        for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert expected_calibration_error(probabilities, labels, bins=bins)[0] == pytest.approx(expected, abs=1e-6)
        curve = reliability(probabilities, labels, bins)
        share = curve.counts / curve.counts.sum()
        gaps = share * np.abs(np.nan_to_num(curve.accuracy) - np.nan_to_num(curve.confidence))
        assert gaps.sum() == pytest.approx(expected, abs=1e-6)


def test_full_confidence_falls_into_the_last_bin_and_none_into_the_first() -> None:
    np.testing.assert_array_equal(bin_of(np.array([0.0, 0.1, 0.100001, 0.5, 1.0]), 10), [0, 0, 1, 4, 9])


def test_a_resample_that_lost_a_class_is_marked_and_not_rewarded() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    labels = np.array([0, 0, 1])
    weights = np.array([[1.0, 1, 1], [1, 2, 0]])
    for metric in (macro_f1, auroc):
        values = metric(probabilities, labels, weights)
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
    assert np.isfinite(accuracy(probabilities, labels, weights)).all()


def test_auroc_of_one_class_is_undefined_and_the_other_metrics_are_not() -> None:
    found = measure(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0]))
    assert np.isnan(found.pop("auroc"))
    assert np.isfinite(list(found.values())).all()


def test_a_class_that_is_never_predicted_has_precision_zero_and_one_that_never_occurs_no_recall() -> None:
    probabilities, labels = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 1])
    np.testing.assert_array_equal(precision(probabilities, labels)[0], [0.5, 0, 0])
    np.testing.assert_array_equal(recall(probabilities, labels)[0], [1, 0, np.nan])


def test_a_thousand_resamples_of_a_thousand_images_take_less_than_two_seconds_for_all_metrics() -> None:
    probabilities, labels = draw(1000, 2, digits=9)
    weights = draw_weights(1000, 1000)
    started = time.perf_counter()
    for metric in metrics_by_name().values():
        assert metric(probabilities, labels, weights).shape == (1000,)
    assert time.perf_counter() - started < 2


def test_the_curves_areas_are_auroc_and_average_precision_also_over_repeats() -> None:
    one, labels = draw(120, 2, seed=7)
    other, _ = draw(120, 2, seed=8)
    other = np.where(np.arange(120)[:, None] < 100, other * 0.2 + one * 0.8, one)
    repeats = np.stack([one, other])
    found = curves(repeats, Holdout(labels, np.arange(120)), ("normal", "cancer"), "cancer")
    roc, pr = found["roc"]["cancer"], found["pr"]["cancer"]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(measure(repeats, labels)["auroc"], abs=0.005)
    expected = np.mean([reference.average_precision_score(labels, repeat[:, 1]) for repeat in repeats])
    assert pr["average_precision"] == pytest.approx(expected)
    assert np.mean(pr["precision"]) == pytest.approx(expected, abs=0.005)
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)


def test_the_curves_are_of_the_positive_class_wherever_it_stands() -> None:
    probabilities, labels = draw(90, 2, seed=9)
    found = curves(probabilities, Holdout(labels, np.arange(90)), ("cancer", "normal"), "cancer")
    assert list(found["roc"]) == ["cancer"]
    expected = reference.average_precision_score(labels == 0, probabilities[:, 0])
    assert found["pr"]["cancer"]["average_precision"] == pytest.approx(expected)


def test_reliability_and_confusion_of_the_curves_count_each_image_once_however_many_repeats() -> None:
    one, labels = draw(50, 3, seed=10)
    found = curves(np.stack([one, one[:, [1, 0, 2]]]), Holdout(labels, np.arange(50)), ("a", "b", "c"), "a")
    assert sum(found["reliability"]["counts"]) == pytest.approx(50)
    assert np.sum(found["confusion"]) == pytest.approx(50)
    assert list(found["roc"]) == ["a", "b", "c"]
