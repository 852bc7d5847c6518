"""The sets that the benchmarks of learning share: images, groups, cached vectors, and draws of labels and hold-out."""

import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

LABELS, HELD_OUT = 100, 0.3
NEAR_BITS, NEAR_CORRELATION = 8, 0.97
BATCH = 64
TRAININGS: dict[str, dict[str, Any]] = {
    "kermany": {"input_px": 56, "epochs": 10, "precision": "bf16", "modality": "xray"},
    "pneumoniamnist": {"input_px": 28, "epochs": 20, "modality": "xray"},
    "breastmnist": {"input_px": 28, "epochs": 100, "modality": "ultrasound"},
    "brain": {"input_px": 56, "epochs": 60, "precision": "bf16", "modality": "mri"},
}
"""Trainings of the encoder beside; epochs were set by time, to about half a minute of two cores, not by result."""


def data_dir() -> Path:
    """Folder of the real images."""
    return Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def load_tar(name: str, pattern: str) -> tuple[list[Any], list[str], list[str]]:
    """Grey images of a tar, each byte string once, their names, and the patient that the pattern finds in the name."""
    from scanloop.archive.decode import grey_if_equal

    images: dict[bytes, tuple[Any, str]] = {}
    with tarfile.open(data_dir() / name) as tar:
        for one in sorted((one for one in tar if re.search(r"\.jpe?g$", one.name)), key=lambda one: one.name):
            payload = tar.extractfile(one).read()  # type: ignore[union-attr]
            pixels = np.array(PIL.Image.open(io.BytesIO(payload)).convert("RGB"))
            images.setdefault(payload, (grey_if_equal(pixels), one.name))
    names = [name for _, name in images.values()]
    return [image for image, _ in images.values()], names, [re.search(pattern, name)[0] for name in names]  # type: ignore[index]


def load(name: str) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Images of a set, their classes (-1 where unknown), and their patients."""
    if name.startswith("kermany"):
        images, names, groups = load_tar("kermany_cxr_224.tar", r"person\d+|IM-\d+")
        causes = np.array([1 if "_bacteria_" in one else 2 if "_virus_" in one else 0 for one in names])
        return images, causes if name == "kermany_causes" else (causes > 0).astype(int), np.array(groups)
    if name == "brain":
        images, names, groups = load_tar("brain_mri_oc.tar", r"[^/]+$")
        found = [0 if "/normal/" in one else 1 if "/cancer/" in one else -1 for one in names]
        return images, np.array(found), np.array([f"{row}-{group}" for row, group in enumerate(groups)])
    file = {"pneumoniamnist": "pneumoniamnist_rebuilt", "breastmnist": "breastmnist_resaved"}[name]
    arrays = np.load(data_dir() / "medmnist" / f"{file}.npz")
    parts = ("train", "val", "test")
    stacked = np.concatenate([arrays[f"{part}_images"] for part in parts])
    labels = np.concatenate([arrays[f"{part}_labels"].ravel() for part in parts]).astype(int)
    return list(stacked), labels, np.arange(len(labels)).astype(str)


def grouped(images: list[Any], patients: np.ndarray) -> np.ndarray:
    """Groups of images, as ingest makes them: one patient's, and near-duplicates."""
    from scanloop.archive import duplicates
    from scanloop.archive.splits import group_ids

    thumbnails = np.stack([duplicates.thumbnail(image) for image in images])
    telling = np.flatnonzero(~duplicates.is_blank(thumbnails))
    hashes = duplicates.perceptual_hashes(thumbnails[telling])
    bits = duplicates.affordable_bits(hashes, NEAR_BITS)
    near = duplicates.near_duplicate_pairs(hashes, lambda rows: thumbnails[telling[rows]], bits, NEAR_CORRELATION)
    order = np.argsort(patients, kind="stable")
    same = patients[order[1:]] == patients[order[:-1]]
    links = np.concatenate([telling[near], np.stack([order[:-1][same], order[1:][same]], axis=1)])
    return group_ids(np.arange(len(images), dtype=np.uint64), links)


def features(name: str, cache: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """Vectors, classes and groups of a set, from the cache where they were made before."""
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.embedding.weights import load_weights

    path = cache / f"{name}.npz"
    if not path.exists():
        images, labels, patients = load(name)
        encoder = new_encoder("squeezenet1_1", seed=0)
        preprocess = load_weights(encoder, str(data_dir() / "weights/SqueezeNet_fp16.onnx"), 224)
        vectors = Engine(encoder, preprocess, BATCH, "float32", [])(images)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, vectors=vectors, labels=labels, groups=grouped(images, patients))
    stored = np.load(path)
    return stored["vectors"], stored["labels"], stored["groups"]


def own_features(name: str, seen: np.ndarray, seed: int, cache: Path) -> np.ndarray:
    """Vectors of all images by an encoder that was trained on those that may be seen, from the cache where it was.

    Args:
        name: Key of `TRAININGS`.
        seen: (n,) images to train on.
        seed: Of the random start and the training.
        cache: Folder.
    """
    import torch

    from scanloop.config import EncoderConfig
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.embedding.weights import load_weights
    from scanloop.pretraining.trainer import train_encoder

    path = cache / f"{name}-own-{seed}.npy"
    if not path.exists():
        images, _, _ = load(name)
        config = EncoderConfig.model_validate(TRAININGS[name] | {"seed": seed})
        encoder = new_encoder(config.encoder, seed)
        preprocess = load_weights(encoder, None, config.input_px)
        squares = np.stack([preprocess.square(images[row])[..., :1] for row in np.flatnonzero(seen)])
        grey = torch.from_numpy(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)))
        train_encoder(encoder, grey, preprocess, config, cache / f"{name}-own-{seed}.checkpoint")
        np.save(path, Engine(encoder, preprocess, BATCH, "float32", [])(images))
    found: np.ndarray = np.load(path)
    return found


def side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Vectors of two encoders as one encoder of both gives them: each part of length 1."""
    from scanloop.embedding.blocks import unit

    return np.hstack([unit(first), unit(second)])


def rows_of(vectors: Any, labels: np.ndarray, groups: np.ndarray, rows: np.ndarray, first: int | None = None) -> Any:
    """Labelled rows as the methods take them."""
    from scanloop.learning.dataset import Known

    return Known(rows, vectors[rows], labels[rows], groups[rows], np.ones(len(rows), bool), first)


def hold_out(groups: np.ndarray, seed: int) -> np.ndarray:
    """Images (n,) of a split's held-out groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: int(HELD_OUT * len(names))])


def draw(
    vectors: Any, labels: np.ndarray, groups: np.ndarray, seed: int, first: int | None = None
) -> tuple[Any, Any, Any]:
    """Labels, pool and hold-out of one split; no group stands in two of hold-out and the rest."""
    from scanloop.learning.dataset import Pool

    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups))
    held_out = np.isin(groups, names[: int(HELD_OUT * len(names))])
    order = rng.permutation(np.flatnonzero(~held_out))
    _, one_each = np.unique(groups[order], return_index=True)
    known = order[np.sort(one_each)[:LABELS]]
    rest = np.setdiff1d(order, known)
    test = np.flatnonzero(held_out)
    rows = [rows_of(vectors, labels, groups, part, first) for part in (known, test)]
    return rows[0], Pool(rest, vectors[rest], groups[rest]), rows[1]
