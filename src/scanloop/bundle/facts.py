"""What training knows of a model and the bundle must carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanloop.bundle.abstention import Abstention
from scanloop.bundle.exemplars import Exemplars
from scanloop.bundle.points import OperatingPoints
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import Conformal
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError
from scanloop.types import Image, Interval


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that mean what they say.

    Attributes:
        calibrator: The map.
        method: How it was fitted, for readers.
        n: Images behind it.
        groups: Independent groups behind it.
        candidates: Out-of-fold measures by method, "none" (before) among them; `learning.calibrating` says which.
        gains: How much lower each method's out-of-fold log-loss is than the temperature's, with its standard error.
        prior: Shares of the classes: "labelled" where the map was fitted, "pool" as estimated there from so many
            "pool_images", and "served", for which the probabilities are.
    """

    calibrator: Calibrator
    method: str
    n: int
    groups: int
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prior: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Content of `calibration.json`."""
        facts = {name: getattr(self, name) for name in ("method", "n", "groups", "candidates", "gains", "prior")}
        return facts | {"calibrator": self.calibrator.as_json()}


@dataclass(frozen=True)
class BundleFacts:
    """Everything about a model but its weights.

    Attributes:
        architecture: The whole network in words, for example "squeezenet1_1 + linear head".
        encoder: Name of the encoder in the network.
        classes: Names of the outputs, in their order.
        positive_class: The class whose probability tables and curves show.
        preprocess: From a slice to the network's input.
        calibration: The calibrator and where it comes from.
        conformal: Thresholds of the sets of classes.
        reference: A few real slices, uint8 (h, w) or (h, w, 3); every machine that loads the bundle must give them the
            probabilities that training saw.
        data_digest: Digest of the catalog and the labels that the model was trained on.
        counts: Training images by kind and class, for example {"labelled": {"cancer": 50, "normal": 49}}.
        metrics: Out-of-fold metrics by name.
        min_side_px: Encoded images with a shorter side are refused, as ingest did.
        max_pixels: Larger encoded images are refused before they are decoded, as ingest did.
        points: From probabilities to labels.
        abstention: When the model leaves an image to a reader.
        exemplars: Labelled images that an answer can be compared with.
        gates: How far a probability may be from torch's, by the precision of the engine: "float32", "bf16", "int8".
        training: Further facts of the training as plain values: epochs, rates, seed.
    """

    architecture: str
    encoder: str
    classes: tuple[str, ...]
    positive_class: str
    preprocess: Preprocess
    calibration: Calibration
    conformal: Conformal
    reference: tuple[Image, ...]
    data_digest: str
    counts: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Interval]
    min_side_px: int
    max_pixels: int
    points: OperatingPoints
    abstention: Abstention
    exemplars: Exemplars
    gates: Mapping[str, float]
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise BundleError(f"a bundle needs at least two distinct classes, not {self.classes}")
        if self.positive_class not in self.classes:
            raise BundleError(f"the positive class {self.positive_class!r} is none of the classes {self.classes}")
        self.calibration.calibrator.check(len(self.classes))
        self.conformal.check(len(self.classes))
        self.points.check(len(self.classes))
        if not self.reference:
            raise BundleError("a bundle needs at least one reference slice; without, a broken engine goes unnoticed")
