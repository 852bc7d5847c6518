"""The calibrator in a bundle: JSON and back, alike in float32, without any library but numpy, no rank turned."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from tiny_bundle import TEMPERATURE, TinyNetwork, draw_slices, new_bundle, new_facts, reseal, torch_probabilities

from scanloop.artifacts import read_json, write_json
from scanloop.bundle.facts import Calibration
from scanloop.bundle.read import read_bundle
from scanloop.calibration.calibrator import Calibrator, calibrator_from, log_odds
from scanloop.calibration.maps import FITS, GRID, MAPS, isotonic
from scanloop.calibration.prior import class_shares, log_ratio, prior_shift
from scanloop.errors import BundleError


def simulated(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits too large and with a bias, and labels of which every class has some."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(size=(n, classes)) * 1.5
    labels = (softmax(honest, axis=1).cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)
    labels[:classes] = np.arange(classes)
    return honest * 2.5 + np.arange(classes) * 0.7, labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", FITS)
def test_json_and_back_is_the_same_map_to_the_bit(name: str, classes: int) -> None:
    logits, labels = simulated(400, classes, 0)
    fitted = FITS[name](logits, labels)
    stored = json.loads(json.dumps({"calibrator": fitted.as_json()}))
    again = calibrator_from(stored, classes)
    assert again == fitted
    assert again.method == name
    np.testing.assert_array_equal(again(logits), fitted(logits))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", FITS)
def test_logits_in_single_precision_get_the_same_probabilities(name: str, classes: int) -> None:
    logits, labels = simulated(600, classes, 1)
    fitted = FITS[name](logits, labels)
    found = fitted(logits.astype(np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, fitted(logits), rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(MAPS)), st.integers(20, 120), st.integers(0, 99))
def test_no_map_of_two_classes_turns_a_ranking_round(name: str, n: int, seed: int) -> None:
    logits, labels = simulated(n, 2, seed)
    order = np.argsort(log_odds(logits, 1))
    found = FITS[name](logits, labels)(logits)[order, 1]
    assert (np.diff(found) >= -1e-12).all()
    if name in {"temperature", "affine"}:
        assert (np.diff(found) > 0).all()


def test_an_isotonic_curve_is_scikit_learns_on_the_grid() -> None:
    logits, labels = simulated(3000, 2, 2)
    fitted = isotonic(logits, labels)
    scaled = np.round((logits[:, 1] - logits[:, 0]) / fitted.temperature / GRID) * GRID
    edge = 1 / 3002
    plain = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(scaled, labels)
    queries = np.stack([np.zeros(200), np.linspace(-12, 12, 200)], axis=1)
    np.testing.assert_allclose(fitted(queries)[:, 1], plain.predict(queries[:, 1] / fitted.temperature), atol=1e-9)


def test_log_odds_equal_those_of_the_softmax() -> None:
    logits = np.random.default_rng(3).normal(size=(50, 4))
    shares = softmax(logits, axis=1)
    for number in range(4):
        np.testing.assert_allclose(expit(log_odds(logits, number)), shares[:, number], atol=1e-12)
    assert np.isfinite(log_odds(np.array([[900.0, -900.0]]), 0)).all()


def test_a_map_of_scaled_logits_is_the_rescaled_map() -> None:
    logits, labels = simulated(300, 3, 4)
    for fit in MAPS.values():
        fitted = fit(logits, labels)
        np.testing.assert_allclose(fitted.rescaled(3)(logits * 3), fitted(logits), atol=1e-12)


def test_calibrated_logits_are_those_whose_softmax_is_the_probability() -> None:
    logits, labels = simulated(300, 3, 5)
    for fit in FITS.values():
        fitted = fit(logits, labels)
        np.testing.assert_allclose(softmax(fitted.logits(logits), axis=1), fitted(logits), atol=1e-12)


def test_a_prior_moves_the_probabilities_as_bayes_rule_does() -> None:
    logits, labels = simulated(500, 3, 6)
    fitted, met = FITS["affine"](logits, labels), np.array([0.2, 0.1, 0.7])
    trained = class_shares(labels, 3)
    served = Calibrator("affine", fitted.temperature, fitted.bias, prior=tuple(log_ratio(trained, met)))
    np.testing.assert_allclose(served(logits), prior_shift(fitted(logits), trained, met), atol=1e-6)
    np.testing.assert_allclose(
        served.logits(logits) - fitted.logits(logits), np.tile(np.log(met / trained), (500, 1)), atol=1e-12
    )


@pytest.mark.parametrize(
    "calibrator",
    [
        Calibrator("spline"),
        Calibrator("temperature", float("inf")),
        Calibrator("affine", 1.0, bias=(0.0,)),
        Calibrator("affine", 1.0, bias=(0.0, float("nan"))),
        Calibrator("beta", 1.0, beta=((-1.0, 1.0, 0.0),)),
        Calibrator("beta", 1.0, beta=((1.0, 1.0, 0.0), (1.0, 1.0, 0.0))),
        Calibrator("isotonic", 1.0, knots=(((0.0, 0.5), (0.0, 0.6)),)),
        Calibrator("isotonic", 1.0, knots=(((0.0, 0.5), (1.0, 0.4)),)),
        Calibrator("isotonic", 1.0, knots=(((0.0, 0.5), (1.0, 1.0)),)),
        Calibrator("isotonic", 1.0, knots=((),)),
        Calibrator("temperature", 1.0, prior=(0.1,)),
    ],
)
def test_numbers_that_are_no_map_are_refused(calibrator: Calibrator) -> None:
    with pytest.raises(BundleError):
        calibrator.check(2)
    with pytest.raises(BundleError):
        calibrator_from({"calibrator": calibrator.as_json()}, 2)


@pytest.mark.parametrize("stored", [{}, {"calibrator": {"version": 1}}, {"calibrator": {"version": 2}}])
def test_a_file_without_a_calibrator_that_is_understood_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=r"calibration\.json"):
        calibrator_from(stored, 2)


def test_a_bundle_from_before_calibrators_and_sets_is_read_as_it_was_meant(tmp_path: Path) -> None:
    folder = new_bundle(tmp_path)
    write_json(folder / "calibration.json", {"temperature": TEMPERATURE, "method": "scaling", "n": 99, "groups": 97})
    (folder / "conformal.json").unlink()
    seal = read_json(folder / "bundle.json")
    del seal["files"]["conformal.json"]
    write_json(folder / "bundle.json", seal | {"schema_version": 1})
    reseal(folder)
    bundle, images = read_bundle(folder), draw_slices(6, seed=8)
    np.testing.assert_allclose(bundle.predict(images), torch_probabilities(TinyNetwork(), images), rtol=0, atol=1e-6)
    assert bundle.conformal.sets(bundle.predict(images)).all()  # nothing is promised, so nothing is left out


@pytest.mark.parametrize("name", ["affine", "beta", "isotonic"])
def test_a_bundle_serves_the_map_that_it_was_given(tmp_path: Path, name: str) -> None:
    """Torch's logits in double precision through the fitted map, against the bundle."""
    images = draw_slices(20, seed=1)
    logits = TEMPERATURE * np.log(torch_probabilities(TinyNetwork(), images))
    labels = np.arange(20) % 2
    calibrator = FITS[name](logits, labels)
    bundle = read_bundle(new_bundle(tmp_path, facts=new_facts(calibration=Calibration(calibrator, "fitted", 20, 20))))
    expected = calibrator(log_softmax(logits, axis=1))
    assert np.ptp(expected[:, 1]) > 0.01
    np.testing.assert_allclose(bundle.predict(images), expected, rtol=0, atol=1e-6)


def test_what_applies_a_calibrator_needs_neither_scipy_nor_scikit_learn_nor_torch() -> None:
    program = (
        "import sys; from scanloop.calibration import calibrator, conformal; import numpy as np;"
        "calibrator.Calibrator('beta', 2.0, beta=((1.0, 2.0, 0.5),))(np.zeros((2, 2), np.float32));"
        "conformal.no_conformal(2).sets(np.full((2, 2), 0.5));"
        "print(sorted({'scipy', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
