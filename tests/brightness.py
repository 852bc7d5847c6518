"""A run ready to be evaluated, whose model reads brightness: what the tests of evaluate start from."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch
from split_files import write_split_lists

from scanloop.archive.shards import ShardWriter
from scanloop.artifacts import read_table, write_json, write_table
from scanloop.bundle.abstention import no_abstention
from scanloop.bundle.exemplars import no_exemplars
from scanloop.bundle.facts import BundleFacts, Calibration
from scanloop.bundle.points import argmax_only
from scanloop.bundle.write import write_bundle
from scanloop.calibration.calibrator import Calibrator
from scanloop.calibration.conformal import no_conformal
from scanloop.embedding.cache import write_vectors
from scanloop.embedding.preprocess import Preprocess
from scanloop.types import Image

CLASSES = ("cancer", "normal")
INPUTS = ("catalog", "labels", "pseudo_labels", "bundle", "baseline")


class Brightness(torch.nn.Module):
    """Bright is cancer; `bias` moves the border."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.head = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]).repeat(1, 3))
            self.head.bias.copy_(torch.tensor([bias, -bias]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))


def draw_slices(n: int) -> tuple[list[Image], list[str]]:
    """Bright slices are mostly cancer."""
    rng = np.random.default_rng(0)
    labels = [CLASSES[row % 2] for row in range(n)]
    levels = [rng.normal(140 if label == "cancer" else 100, 22) for label in labels]
    return [np.clip(rng.normal(level, 10, (20, 24)), 0, 255).astype(np.uint8) for level in levels], labels


def to_png(image: Image) -> bytes:
    sink = io.BytesIO()
    PIL.Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


def new_catalog(folder: Path, test: bool) -> pd.DataFrame:
    """60 slices in groups of two: first 30 with labels, 20 of them the test; slice 40 has a copy under another uri."""
    images, labels = draw_slices(60)
    writer = ShardWriter(folder, shard_slices=25)
    rows = []
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        slice_id = hashlib.sha256(str(row).encode()).hexdigest()
        split = "test" if test and row < 20 else "train"
        known = label if row < 30 else None
        rows.append({"slice_id": slice_id, "group_id": f"g{row // 2}", "label": known, "split": split}
                    | writer.add(slice_id, to_png(image))._asdict())  # fmt: skip
    writer.close()
    manifest = pd.DataFrame(rows)
    uris = [f"scans/{row}.png" for row in range(60)] + ["scans/copy of 40.png"]
    sources = pd.DataFrame({"slice_id": [*manifest["slice_id"], manifest["slice_id"][40]], "uri": uris})
    write_table(folder, "manifest", manifest)
    write_split_lists(folder, read_table(folder, "manifest"))
    write_table(folder, "sources.parquet", sources)
    write_json(folder / "catalog.json", {"classes": CLASSES, "positive_class": "cancer"})
    return manifest


def out_of_fold(manifest: pd.DataFrame, bought: list[int], noise: float) -> pd.DataFrame:
    """Two repeats of the labelled training slices and of those bought later, whose logits are wrong on purpose."""
    rng = np.random.default_rng(5)
    rows = []
    for repeat in range(2):
        for row in [*np.flatnonzero(manifest["label"].notna() & (manifest["split"] == "train")), *bought]:
            label = manifest["label"][row] or "cancer"
            sign = (1 if label == "cancer" else -1) * (-1 if row in bought else 1)
            logit = 1.5 * sign + noise * rng.normal()
            rows.append({"slice_id": manifest["slice_id"][row], "group_id": manifest["group_id"][row], "repeat": repeat,
                         "fold": int(row) % 3, "label": label, "logits": [logit, -logit]})  # fmt: skip
    return pd.DataFrame(rows)


def seal(folder: Path) -> Path:
    """Give an artifact the key that the step reads."""
    write_json(folder / "artifact.json", {"key": hashlib.sha256(str(folder).encode()).hexdigest()})
    return folder


def new_pseudo_labels(manifest: pd.DataFrame, bought: list[int], promoted: bool) -> pd.DataFrame:
    """A row for every uri; the head behind it is a third model, as sure of each slice as its number says."""
    rows = pd.DataFrame({"slice_id": manifest["slice_id"], "uri": [f"scans/{row}.png" for row in range(60)]})
    rows["confidence"] = 0.5 + np.arange(60) / 200
    rows["label"] = np.where(np.arange(60) % 3 == 0, "cancer", "normal")
    known = (manifest["label"].notna() & (manifest["split"] == "train")) | manifest.index.isin(bought)
    rows["promoted"] = promoted & manifest.index.isin([31, 32])
    rows["reason"] = np.where(rows["promoted"], "promoted", "low confidence")
    rows.loc[known, "reason"] = "labelled"
    rows.loc[manifest["split"] == "test", "reason"] = "held out with its group"
    return pd.concat([rows, rows.iloc[[40]].assign(uri="scans/copy of 40.png")], ignore_index=True)


def new_run(folder: Path, test: bool, promoted: bool = True, learnt: int = 2) -> dict[str, Path]:
    """Every input of the step; slices 50 and 51 were bought, 31 and 32 promoted, and so many of these learnt from."""
    manifest = new_catalog(folder / "catalog", test)
    bought = [50, 51]
    answers = pd.DataFrame({"slice_id": manifest["slice_id"][bought], "label": ["cancer", "normal"]})
    write_table(folder / "labels", "labels.parquet", answers)
    write_table(folder / "pseudo_labels", "pseudo_labels.parquet", new_pseudo_labels(manifest, bought, promoted))
    baseline = (0.4, 2.0)
    learnt = learnt if promoted else 0
    arms = {"bundle": (*((0.0, 1.0) if learnt else baseline), learnt), "baseline": (*baseline, 0)}
    for name, (bias, noise, pseudo_labelled) in arms.items():
        scored = out_of_fold(manifest, bought, noise)
        known = scored.drop_duplicates("slice_id")[["slice_id", "group_id"]].assign(source="labelled")
        pseudo = manifest.loc[[31, 32][:pseudo_labelled], ["slice_id", "group_id"]].assign(source="pseudo_labelled")
        write_table(folder / name, "out_of_fold.parquet", scored)
        write_table(folder / name, "learnt.parquet", pd.concat([known, pseudo]))
        facts = BundleFacts(
            "mean brightness", "none", CLASSES, "cancer", Preprocess(32, 16),
            Calibration(Calibrator("none"), "", 30, 15),
            no_conformal(2),
            tuple(draw_slices(3)[0]), "d" * 64,
            {"labelled": {"cancer": len(known)}, "pseudo_labelled": {"cancer": pseudo_labelled}},
            {}, 8, 10**6, argmax_only(0), no_abstention(), no_exemplars(), {"float32": 1e-5},
        )  # fmt: skip
        write_bundle(folder / name, Brightness(bias), facts)
    return {name: seal(folder / name) for name in INPUTS}


def new_embeddings(folder: Path, catalog: Path) -> Path:
    """Vectors of the slices: mean and spread of their values, and noise."""
    manifest, draw = read_table(catalog, "manifest"), np.random.default_rng(6)
    vectors = np.stack([[image.mean() / 40, image.std() / 5, *draw.normal(size=6)] for image in draw_slices(60)[0]])
    index, files = manifest[["slice_id", "shard"]].copy(), {}
    index["row"] = index.groupby("shard").cumcount()
    for shard, rows in index.groupby("shard"):
        files[shard] = f"{shard}.safetensors"
        write_vectors(folder / files[shard], vectors[rows.index].astype(np.float16))
    write_table(folder, "index.parquet", index)
    write_json(folder / "embeddings.json", {"dimension": 8, "files": files})
    return seal(folder)
