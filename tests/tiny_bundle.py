"""A tiny network as a bundle, for the tests of the bundle and of serving."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch
from torch import nn

from scanloop.artifacts import read_json, write_json, write_table
from scanloop.bundle.abstention import Familiar, fit_abstention
from scanloop.bundle.exemplars import new_exemplars
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.points import OperatingPoints
from scanloop.bundle.write import write_bundle
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import SPLIT, Conformal
from scanloop.calibration.strangeness import unit_rows
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Image, Interval

CLASSES = ("cancer", "normal")
TEMPERATURE = 1.7
PREPROCESS = Preprocess(archive_px=48, input_px=32)


class TinyNetwork(nn.Module):
    """What every classifier here has: convolution, batch norm with statistics of its own, pooling, a linear head."""

    def __init__(self, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        pooled = nn.AdaptiveAvgPool2d(1)
        self.encoder = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), pooled, nn.Flatten())
        self.head = nn.Linear(8, classes)
        with torch.no_grad():
            self.encoder[1].running_mean.uniform_(-1, 1)
            self.encoder[1].running_var.uniform_(0.5, 2)
            self.head.weight.mul_(24)
            self.head.bias[0] += 13  # so that the probabilities of the drawn slices spread over (0, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))


def draw_slices(n: int, seed: int = 0) -> tuple[Image, ...]:
    """Grey and colour slices of several sizes, smooth enough to survive a JPEG."""
    rng = np.random.default_rng(seed)
    slices = []
    for index in range(n):
        side = (40 + 7 * (index % 5), 50)
        blocks = rng.integers(0, 256 >> index % 4, (6, 6, 3), dtype=np.uint8)  # from bright to dark
        small = PIL.Image.fromarray(blocks).resize(side, PIL.Image.Resampling.BICUBIC)
        slices.append(np.asarray(small.convert("L") if index % 2 else small))
    return tuple(slices)


def _vectors(n: int, seed: int = 0) -> np.ndarray:
    """Embeddings of drawn slices by the tiny network."""
    with torch.inference_mode():
        return TinyNetwork().eval().encoder(torch.from_numpy(PREPROCESS(draw_slices(n, seed)))).numpy()


def _familiar() -> Familiar:
    vectors = unit_rows(_vectors(80, seed=9)).astype(np.float16)
    return Familiar(np.array([f"familiar {row:02d}" for row in range(80)]), vectors, np.arange(80) % 2 == 0)


def new_facts(**changes: object) -> BundleFacts:
    facts = {
        "architecture": "tiny network + linear head",
        "encoder": "tiny",
        "classes": CLASSES,
        "positive_class": "cancer",
        "preprocess": PREPROCESS,
        "calibration": Calibration(
            Calibrator("temperature", TEMPERATURE), "temperature scaling on out-of-fold logits", 99, 97
        ),
        "conformal": Conformal(0.1, (0.3, 0.4), (50, 49), True, SPLIT),
        "reference": draw_slices(4),
        "data_digest": "d" * 64,
        "counts": {"labelled": {"cancer": 50, "normal": 49}, "pseudo_labelled": {"cancer": 300, "normal": 200}},
        "metrics": {"macro_f1": Interval(0.9, 0.85, 0.94, n=99, groups=97)},
        "min_side_px": 8,
        "max_pixels": 50_000_000,
        "points": OperatingPoints({"argmax": None, "tpr 0.95": 0.4, "fpr 0.05": 0.6}, "argmax", 0, 99),
        "abstention": fit_abstention(_familiar(), 0.05, None),
        "exemplars": new_exemplars([f"slice {row:03d}" for row in range(99)], np.arange(99) % 2, _vectors(99)),
        "gates": {"float32": 1e-5, "bf16": 0.02, "int8": 0.05},
        "training": {"epochs": 3, "seed": 0},
    }
    return BundleFacts(**(facts | changes))


def new_bundle(folder: Path, model: nn.Module | None = None, facts: BundleFacts | None = None) -> Path:
    """A real bundle of a tiny network."""
    row = {"slice_id": "a", "group_id": "g", "repeat": 0, "fold": 0, "label": "cancer", "logits": [0.5, -0.5]}
    facts = facts or new_facts()
    learnt = [source for source, classes in facts.counts.items() for _ in range(sum(classes.values()))]
    ids = ["a", *(f"slice {row}" for row in range(1, len(learnt)))]
    write_table(folder, "out_of_fold.parquet", pd.DataFrame([row]))
    write_table(folder, "learnt.parquet", pd.DataFrame({"slice_id": ids, "group_id": "g", "source": learnt}))
    write_bundle(folder, model or TinyNetwork(), facts)
    return folder


def reseal(bundle: Path) -> None:
    """Make a bundle's seal that of its files, as who tampers with care would."""
    facts = read_json(bundle / "bundle.json")
    facts["files"] = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in facts["files"]}
    write_json(bundle / "bundle.json", facts)


def torch_probabilities(model: nn.Module, images: tuple[Image, ...], preprocess: Preprocess = PREPROCESS) -> np.ndarray:
    """The plain way: torch in double precision, one image at a time."""
    model = model.double().eval()
    with torch.inference_mode():
        logits = [model(torch.from_numpy(preprocess([image])).double())[0] for image in images]
        return torch.softmax(torch.stack(logits) / TEMPERATURE, dim=1).numpy()


def to_jpeg(image: Image) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "JPEG", quality=95)
    return sink.getvalue()
