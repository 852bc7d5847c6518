"""A whole bundle around an untrained ResNet-18 at 224, for what measures serving: speed asks for no accuracy."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from scanloop.artifacts import write_table
from scanloop.bundle.abstention import Familiar, fit_abstention
from scanloop.bundle.exemplars import new_exemplars
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.points import OperatingPoints
from scanloop.bundle.write import write_bundle
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import SPLIT, Conformal
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Image, Interval

CLASSES = ("normal", "pneumonia")
FAMILIAR, EXEMPLARS, DIMENSIONS = 2_000, 500, 512


class Network(nn.Module):
    """ResNet-18 and a linear head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.encoder = new_encoder("resnet18", seed)
        torch.manual_seed(seed)
        self.head = nn.Linear(DIMENSIONS, len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (n, 2) of images (n, 3, 224, 224), normalised."""
        return self.head(self.encoder(images))  # type: ignore[no-any-return]


def new_network(seed: int = 0) -> Network:
    """The network with seeded weights, as it is served."""
    return Network(seed).eval()


def drawn_images(n: int, side_px: int = 224) -> list[Image]:
    """Grey images, uint8 (side, side): rings and noise, so that a JPEG of one is as large as of a radiograph."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px] / side_px
    images = []
    for _ in range(n):
        rings = np.hypot(x - draw.uniform(0.3, 0.7), y - draw.uniform(0.3, 0.7)) * draw.uniform(20, 50)
        pixels = 110 + 70 * np.sin(rings) + draw.normal(0, 6, rings.shape)
        images.append(pixels.clip(0, 255).astype(np.uint8))
    return images


def write_resnet_bundle(folder: Path, seed: int = 0) -> Path:
    """Write the bundle; the same seed gives the same bytes.

    Args:
        folder: Is made.
        seed: Of the weights: another one is another model.
    """
    draw = np.random.default_rng(seed)
    vectors = np.abs(draw.normal(size=(FAMILIAR, DIMENSIONS))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.array([f"slice-{row:05d}" for row in range(FAMILIAR)])
    familiar = Familiar(ids, vectors.astype(np.float16), np.arange(FAMILIAR) % 2 == 0)
    labels = np.arange(EXEMPLARS) % 2
    facts = BundleFacts(
        architecture="resnet18 + linear head",
        encoder="resnet18",
        classes=CLASSES,
        positive_class=CLASSES[1],
        preprocess=Preprocess(archive_px=256, input_px=224),
        calibration=Calibration(Calibrator("temperature", 1.5), "none: the network is untrained", EXEMPLARS, EXEMPLARS),
        conformal=Conformal(0.1, (0.3, 0.4), (EXEMPLARS // 2, EXEMPLARS // 2), True, SPLIT),
        reference=tuple(drawn_images(8)),
        data_digest=hashlib.sha256(b"drawn").hexdigest(),
        counts={"labelled": dict.fromkeys(CLASSES, EXEMPLARS // 2), "pseudo_labelled": dict.fromkeys(CLASSES, 0)},
        metrics={"macro_f1": Interval(0.5, 0.4, 0.6, n=EXEMPLARS, groups=EXEMPLARS)},
        min_side_px=8,
        max_pixels=50_000_000,
        points=OperatingPoints({"argmax": None}, "argmax", 0, EXEMPLARS),
        abstention=fit_abstention(familiar, 0.05, None),
        exemplars=new_exemplars(list(ids[:EXEMPLARS]), labels, vectors[:EXEMPLARS]),
        gates={"float32": 1e-5, "bf16": 0.02, "int8": 0.05},
        training={"epochs": 0, "seed": seed},
    )
    row = {"slice_id": ids[0], "group_id": "g", "repeat": 0, "fold": 0, "label": CLASSES[0], "logits": [0.5, -0.5]}
    write_table(folder, "out_of_fold.parquet", pd.DataFrame([row]))
    learnt = pd.DataFrame({"slice_id": ids[:EXEMPLARS], "group_id": "g", "source": "labelled"})
    write_table(folder, "learnt.parquet", learnt)
    write_bundle(folder, new_network(seed), facts)
    return folder
