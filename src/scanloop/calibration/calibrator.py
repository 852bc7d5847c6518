"""The map from logits to honest probabilities as plain numbers: a bundle carries it, numpy alone applies it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.calibration.scaling import probabilities_of
from scanloop.errors import BundleError
from scanloop.types import Float

VERSION = 1
"""Of the form in `calibration.json`; a bundle without one, from before it, holds a temperature alone."""

METHODS = ("none", "temperature", "affine", "beta", "isotonic")
MOST_KNOTS = 10_000


@dataclass(frozen=True)
class Calibrator:
    """From a model's logits to calibrated probabilities.

    Logits are divided by the temperature, then what the method adds is applied, then the prior. Two classes have one
    curve, that of the second class; more classes have one each, against the rest.

    With two classes no map turns the order of two images round, so AUROC stays: "isotonic" makes ties, since images
    between two knots of equal height share a probability; "beta" does where one of its coefficients is 0. The most
    probable class of an image stays under "none" and "temperature"; every other map, and a prior, move the threshold.
    With more classes these can change the order of images too.

    Attributes:
        method: One of `METHODS`.
        temperature: Divisor of the logits, > 0.
        bias: (classes,) added to the scaled logits; "affine" alone has one.
        beta: (curves, 3) coefficients a, b >= 0 and c of a ln p - b ln(1 - p) + c, the log-odds that come out.
        knots: (curves, knots, 2) scaled log-odds that go in, ascending, and probabilities that come out, never falling,
            within (0, 1); straight lines join them.
        prior: (classes,) added to the logarithms of the probabilities: of the shares where it is used over those where
            it was fitted. Empty for no correction.
    """

    method: str
    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    beta: tuple[tuple[float, float, float], ...] = ()
    knots: tuple[tuple[tuple[float, float], ...], ...] = ()
    prior: tuple[float, ...] = ()

    def __call__(self, logits: npt.ArrayLike) -> Float:
        """Probabilities float64 (n, classes) of logits float32 or float64 (n, classes); rows sum to 1."""
        return probabilities_of(self.logits(logits))

    def logits(self, logits: npt.ArrayLike) -> Float:
        """Calibrated logits float64 (n, classes): their softmax is the probability."""
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        if self.bias:
            scaled = scaled + np.array(self.bias)
        if self.beta or self.knots:
            scaled = self._curved(scaled)
        return scaled + np.array(self.prior) if self.prior else scaled

    def rescaled(self, factor: float) -> "Calibrator":
        """The map of logits that are `factor` times as large."""
        return replace(self, temperature=self.temperature * factor)

    def as_json(self) -> dict[str, Any]:
        """As plain values, for `calibration.json`; `calibrator_from` reads them."""
        return {"version": VERSION} | asdict(self)

    def check(self, classes: int) -> None:
        """Return if this is a map of so many classes.

        Raises:
            BundleError: A number is not finite or out of its range, or there are too few or too many of them.
        """
        curves = 1 if classes == 2 else classes
        lengths = (len(self.bias), len(self.prior), len(self.beta), len(self.knots))
        allowed = ({0, classes}, {0, classes}, {0, curves}, {0, curves})
        flat = [*self.bias, *self.prior, *np.ravel(self.beta)]
        if self.method not in METHODS:
            raise BundleError(f"a calibrator's method is one of {', '.join(METHODS)}, not {self.method!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BundleError(f"the temperature must be a positive number, not {self.temperature}")
        if any(length not in these for length, these in zip(lengths, allowed, strict=True)):
            raise BundleError(f"the calibrator {self.method} has not the numbers for {classes} classes")
        if not np.isfinite(flat).all() or any(min(a, b) < 0 for a, b, _ in self.beta):
            raise BundleError(f"the calibrator {self.method} has a number that is not finite or turns a ranking round")
        for curve in self.knots:
            _check_knots(np.array(curve, dtype=np.float64))

    def _curved(self, scaled: Float) -> Float:
        two = scaled.shape[1] == 2
        numbers = [1] if two else range(scaled.shape[1])
        pairs = [self._curve(index, log_odds(scaled, number)) for index, number in enumerate(numbers)]
        if two:
            return np.stack(pairs[0][::-1], axis=1)
        return np.stack([share for share, _ in pairs], axis=1)

    def _curve(self, index: int, odds: Float) -> tuple[Float, Float]:
        """Logarithms of a class's mapped probability and of the rest's."""
        if self.beta:
            a, b, c = self.beta[index]
            mapped = -a * np.logaddexp(0, -odds) + b * np.logaddexp(0, odds) + c
            return -np.logaddexp(0, -mapped), -np.logaddexp(0, mapped)
        inside, outside = np.array(self.knots[index]).T
        share = np.interp(odds, inside, outside)
        return np.log(share), np.log1p(-share)


def log_odds(logits: Float, number: int) -> Float:
    """Logarithm of a class's probability over that of all others, (n,), from logits (n, classes)."""
    others: Float = np.logaddexp.reduce(np.delete(logits, number, axis=1), axis=1)
    odds: Float = logits[:, number] - others
    return odds


def calibrator_from(stored: Mapping[str, Any], classes: int) -> Calibrator:
    """Calibrator in the content of `calibration.json`, that of older bundles (a temperature alone) included.

    Raises:
        BundleError: It holds none that this version understands.
    """
    found = stored.get("calibrator", {"version": VERSION, "method": "temperature"} | _only_temperature(stored))
    if found.get("version") != VERSION:
        raise BundleError(f"calibration.json has form {found.get('version')}; this version of scanloop reads {VERSION}")
    try:
        calibrator = Calibrator(
            method=str(found["method"]),
            temperature=float(found["temperature"]),
            bias=tuple(float(value) for value in found.get("bias", ())),
            beta=tuple((float(a), float(b), float(c)) for a, b, c in found.get("beta", ())),
            knots=tuple(tuple((float(x), float(y)) for x, y in curve) for curve in found.get("knots", ())),
            prior=tuple(float(value) for value in found.get("prior", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"calibration.json holds no calibrator ({error!r})") from error
    calibrator.check(classes)
    return calibrator


def _only_temperature(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {"temperature": stored["temperature"]} if "temperature" in stored else {}


def _check_knots(knots: Float) -> None:
    if knots.ndim != 2 or not 1 <= len(knots) <= MOST_KNOTS or not np.isfinite(knots).all():
        raise BundleError(f"a curve of the calibrator must have 1 to {MOST_KNOTS} knots of finite numbers")
    inside, outside = knots.T
    if (np.diff(inside) <= 0).any() or (np.diff(outside) < 0).any() or not 0 < outside[0] <= outside[-1] < 1:
        raise BundleError("a curve of the calibrator must rise, with probabilities between 0 and 1")
