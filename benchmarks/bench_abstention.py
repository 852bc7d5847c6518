"""How many foreign images a model abstains from, and how many of its own kind: a bundle made by the steps, then asked.

.venv/bin/python benchmarks/bench_abstention.py --archive brain

A share of the archive is held out by group before anything is made; whoever asks sees encoded images alone. Prints JSON
as its last line: by kind the share called strange, with n and an exact interval, and the same of other scores.
"""

import argparse
import csv
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from foreign_images import Kind, drawn, from_npz, from_tar
from strange_scores import other_scores

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_table, write_json, write_table
from scanloop.bundle.abstention import LOW_CONFIDENCE, OUT_OF_DISTRIBUTION
from scanloop.bundle.decisions import decide
from scanloop.bundle.engines.engine import Outputs
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.config import (
    CrossValidation,
    EmbedConfig,
    IngestConfig,
    PretrainConfig,
    RetrainConfig,
    TableSource,
    TriageConfig,
)
from scanloop.evaluation.operating_points import clustered_proportion
from scanloop.grouping import one_a_group
from scanloop.steps.embed import embed
from scanloop.steps.ingest import ingest
from scanloop.steps.pretrain import pretrain
from scanloop.steps.retrain import retrain
from scanloop.steps.triage import triage

HELD_OUT, LABELS, MOST = 0.3, 100, 1506
FOREIGN = 500
SUFFIXES = (".jpeg", ".jpg")


@dataclass(frozen=True)
class Archive:
    """A tar of images: pattern of the patient in a name, classes by folder, and what is found by a chest model."""

    file: str
    patient: str
    classes: tuple[str, str]
    positive: str


ARCHIVES = {
    "brain": Archive("brain_mri_oc.tar", r"[^/]+$", ("cancer", "normal"), "cancer"),
    "chest": Archive("kermany_cxr_224.tar", r"person\d+|IM-\d+", ("NORMAL", "PNEUMONIA"), "PNEUMONIA"),
}


def data_dir() -> Path:
    """Folder of the real images."""
    return Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write_list(archive: Archive, path: Path, seed: int) -> None:
    """A table of the archive's images that keeps a share of the patients from everything, and tells 100 labels."""
    draw = np.random.default_rng(seed)
    with tarfile.open(data_dir() / archive.file) as tar:
        names = sorted(one.name.removeprefix("./") for one in tar if one.name.endswith(SUFFIXES))
    names = sorted(draw.permutation(names)[:MOST].tolist())
    patients = [re.search(archive.patient, name)[0] for name in names]  # type: ignore[index]
    chosen = np.unique(patients)
    held_out = set(draw.permutation(chosen)[: round(HELD_OUT * len(chosen))])
    given = {name: next((one for one in archive.classes if f"/{one}/" in name), "") for name in names}
    pairs = zip(names, patients, strict=True)
    learning = [name for name, patient in pairs if patient not in held_out and given[name]]
    known = {
        name
        for one in archive.classes
        for name in draw.permutation([name for name in learning if given[name] == one])[: LABELS // 2]
    }
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "patient_id", "split"])
        for name, patient in zip(names, patients, strict=True):
            split = "test" if patient in held_out else "train"
            table.writerow([name, given[name] if split == "test" or name in known else "", patient, split])


def make_bundle(name: str, run: Path, seed: int) -> Path:
    """The bundle, by the steps as a pipeline calls them; a run that was made before is found."""
    archive = ARCHIVES[name]
    run.mkdir(parents=True, exist_ok=True)
    write_list(archive, run / "list.csv", seed)
    columns = {one: one for one in ("path", "label", "patient_id", "split")}
    source = TableSource(path=str(data_dir() / archive.file), table=str(run / "list.csv"), columns=columns,
                         splits={"train": "train", "test": "test"}, deidentify=False)  # fmt: skip
    made = {"catalog": run / "catalog"}
    ingest(IngestConfig(seed=seed, source=source, positive_class=archive.positive), output=made["catalog"])
    weights = str(data_dir() / "weights" / "SqueezeNet_fp16.onnx")
    config = PretrainConfig(seed=seed, encoder="squeezenet1_1", method="none", weights=weights, input_px=224)
    pretrain(config, **made, output=run / "encoder")
    made["encoder"] = run / "encoder"
    embed(EmbedConfig(seed=seed), **made, output=run / "embeddings")
    triage(TriageConfig(seed=seed), catalog=run / "catalog", embeddings=run / "embeddings", output=run / "triage")
    write_table(run / "labels", "labels.parquet", pd.DataFrame({"slice_id": [], "label": []}))
    write_json(run / "labels" / "artifact.json", {"key": "none were bought"})
    made |= {one: run / one for one in ("embeddings", "triage", "labels")}
    plan = CrossValidation(seed=seed, folds=3, repeats=1)
    retrain(RetrainConfig(seed=seed, cross_validation=plan), **made, output=run / "bundle")
    return run / "bundle"


def foreign_kinds(name: str, n: int) -> dict[str, Kind]:
    """What the model has never seen the like of."""
    others: dict[str, Kind] = {
        "breast ultrasound, 28 px": from_npz(data_dir() / "medmnist" / "breastmnist_resaved.npz", n)
    }
    if name == "brain":
        others["chest X-rays, Kermany"] = from_tar(data_dir() / "kermany_cxr_224.tar", SUFFIXES, r"person\d+|IM-\d+", n)
        others["chest X-rays, NIH"] = from_tar(data_dir() / "nih_cxr14_1024.tar", (".png",), r"\d{8}(?=_)", n)
    else:
        others["brain MRI"] = from_tar(data_dir() / "brain_mri_oc.tar", SUFFIXES, r"[^/]+$", n)
    return others | drawn(n // 2)


def ask(model: Bundle, images: Iterable[Any]) -> Outputs:
    """Probabilities and embeddings of slices, as a server computes them; 32 at a time."""
    squares = [model.preprocess.square(image) for image in images]
    found = [model.engine.run_squares(np.stack(squares[start : start + 32])) for start in range(0, len(squares), 32)]
    both = [(one.logits, one.embeddings) for one in found if one.embeddings is not None]
    return Outputs(*(np.concatenate(parts) for parts in zip(*both, strict=True)))


def some(outputs: Outputs, rows: Any) -> Outputs:
    """The outputs of some images."""
    assert outputs.embeddings is not None
    return Outputs(outputs.logits[rows], outputs.embeddings[rows])


def of_archive(model: Bundle, run: Path) -> tuple[Outputs, pd.DataFrame]:
    """Outputs of the images that were held out, and their rows."""
    manifest = read_table(run / "catalog", "manifest")
    rows = manifest[manifest["split"] == "test"]
    parts = [(ids, images) for _, ids, images in iterate_shards(run / "catalog", rows)]
    order = pd.Index([one for ids, _ in parts for one in ids])
    return ask(model, [one for _, images in parts for one in images]), rows.set_index("slice_id").loc[order]


def told(called: Any, groups: Any) -> dict[str, Any]:
    """A share with its exact interval, at the effective number of images where some share a group."""
    found = clustered_proportion(np.asarray(called, dtype=bool), np.asarray(groups), 0.95)
    return {one: getattr(found, one) for one in ("value", "low", "high", "n", "groups")}


def measure_rule(model: Bundle, outputs: Outputs, groups: Any) -> dict[str, Any]:
    """Shares of images that the bundle's own rule abstains from, by reason."""
    decided = decide(model, outputs)
    reasons = np.array([str(one) for one in decided.reasons])
    return {
        "strange": told(reasons == OUT_OF_DISTRIBUTION, groups),
        "unsure": told(reasons == LOW_CONFIDENCE, groups),
        "labels": {name: int((decided.labels == row).sum()) for row, name in enumerate(model.classes)},
        "mean_confidence": float(decided.probabilities.max(axis=1).mean()),
    }


def main() -> None:
    """Make the bundle, ask it about everything, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", choices=sorted(ARCHIVES), default="brain")
    parser.add_argument("--work", type=Path, help="Folder of the run; a temporary one when not given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = (arguments.work or Path(scratch)).absolute()
        path = make_bundle(arguments.archive, run, arguments.seed)
        model = read_bundle(path)
        own, rows = of_archive(model, run)
    groups, labelled = rows["group_id"].to_numpy(), rows["label"].notna().to_numpy()
    one = one_a_group(groups, arguments.seed)
    parts = {"images": np.arange(len(groups)), "one a group": one,
             "labelled": np.flatnonzero(labelled), "unlabelled": np.flatnonzero(~labelled)}  # fmt: skip
    figures: dict[str, Any] = {
        name: measure_rule(model, some(own, part), groups[part])
        for name, part in parts.items() if len(part)
    }  # fmt: skip
    asked = {}
    for name, kind in foreign_kinds(arguments.archive, FOREIGN).items():
        asked[name] = ask(model, [model.decode(payload) for payload in kind.images]), kind.groups
    foreign = {name: measure_rule(model, *found) for name, found in asked.items()}
    scores = other_scores(model, some(own, one), {name: outputs for name, (outputs, _) in asked.items()})
    facts = {"benchmark": "abstention", "archive": arguments.archive, "seed": arguments.seed, "cores": os.cpu_count(),
             "rule": model.abstention.as_json()}  # fmt: skip
    print(json.dumps(facts | {"own": figures, "foreign": foreign, "other_scores": scores}))


if __name__ == "__main__":
    main()
