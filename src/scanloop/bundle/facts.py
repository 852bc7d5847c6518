"""What training knows of a model and the bundle must carry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError
from scanloop.types import Image, Interval


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that mean what they say.

    Attributes:
        temperature: Divisor of the logits, > 0.
        method: How it was fitted, for readers.
        n: Images behind it.
        groups: Independent groups behind it.
    """

    temperature: float
    method: str
    n: int
    groups: int


@dataclass(frozen=True)
class BundleFacts:
    """Everything about a model but its weights.

    Attributes:
        architecture: The whole network in words, for example "squeezenet1_1 + linear head".
        encoder: Name of the encoder in the network.
        classes: Names of the outputs, in their order.
        positive_class: The class whose probability tables and curves show.
        preprocess: From a slice to the network's input.
        calibration: The temperature and where it comes from.
        reference: A few real slices, uint8 (h, w) or (h, w, 3); every machine that loads the bundle must give them the
            probabilities that training saw.
        data_digest: Digest of the catalog and the labels that the model was trained on.
        counts: Training images by kind and class, for example {"labelled": {"cancer": 50, "normal": 49}}.
        metrics: Out-of-fold metrics by name.
        min_side_px: Encoded images with a shorter side are refused, as ingest did.
        max_pixels: Larger encoded images are refused before they are decoded, as ingest did.
        training: Further facts of the training as plain values: epochs, rates, seed.
    """

    architecture: str
    encoder: str
    classes: tuple[str, ...]
    positive_class: str
    preprocess: Preprocess
    calibration: Calibration
    reference: tuple[Image, ...]
    data_digest: str
    counts: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Interval]
    min_side_px: int
    max_pixels: int
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        temperature = self.calibration.temperature
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise BundleError(f"a bundle needs at least two distinct classes, not {self.classes}")
        if self.positive_class not in self.classes:
            raise BundleError(f"the positive class {self.positive_class!r} is none of the classes {self.classes}")
        if not (math.isfinite(temperature) and temperature > 0):
            raise BundleError(f"the temperature must be a positive number, not {temperature}")
        if not self.reference:
            raise BundleError("a bundle needs at least one reference slice; without, a broken engine goes unnoticed")
