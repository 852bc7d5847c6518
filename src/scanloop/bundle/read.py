"""Read a bundle: every file against its digest, then the network against its reference. Neither pickle nor torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scanloop.artifacts import KINDS, read_json, read_table
from scanloop.bundle.engines.choice import Wanted, choose
from scanloop.bundle.engines.engine import Engine, Material
from scanloop.bundle.predict import Bundle
from scanloop.bundle.reference import GATES, check_reference
from scanloop.calibration.calibrator import calibrator_from
from scanloop.calibration.conformal import conformal_from, no_conformal
from scanloop.embedding.preprocess import preprocess_from
from scanloop.errors import ArtifactError, BundleError, ConfigError

CONFORMAL = "conformal.json"
"""A bundle that was sealed without it, before there were sets, is read as one that knows no thresholds."""

REMEDY = "copy the bundle again, or run the step retrain, which writes it"


def read_bundle(path: Path, wanted: Wanted | None = None) -> Bundle:
    """The classifier in a bundle, checked and warm.

    Args:
        path: The bundle's directory.
        wanted: Engine, precision and threads; ONNX Runtime in float32 on all cores by default.

    Raises:
        BundleError: A file is missing or changed (the message names it), or this machine computes other probabilities
            than training did.
        ConfigError: The engine is not installed, or does not compute in this precision.
    """
    files = _read_files(path)
    try:
        bundle = _assemble(files, wanted or Wanted())
    except (BundleError, ConfigError):
        raise
    except Exception as error:  # whole by its digests, so another version of scanloop wrote it
        raise BundleError(f"{path}: this version of scanloop cannot read the bundle ({error}); {REMEDY}") from error
    return bundle


def read_learnt(path: Path) -> pd.DataFrame:
    """What a bundle says that it learnt from: rows of `learnt.parquet`, held against its seal and its own counts.

    Where patients were erased, the seal says how many rows left with them.

    Raises:
        BundleError: A file is missing or changed, or the rows are not as many as the bundle says that it learnt from.
    """
    about = json.loads(_read_files(path)["bundle.json"])
    counts, erased = about["counts"], about.get("erased", {})
    learnt = read_table(path, "learnt.parquet")
    for source, by_class in counts.items():
        if (rows := int((learnt["source"] == source).sum())) + erased.get(source, 0) != sum(by_class.values()):
            raise BundleError(
                f"{path}: learnt.parquet names {rows} {source} slices, bundle.json counts others; {REMEDY}"
            )
    scored = set(read_table(path, "out_of_fold.parquet")["slice_id"])
    if unnamed := scored - set(learnt["slice_id"]):
        raise BundleError(f"{path}: learnt.parquet leaves out {min(unnamed)}, which was cross-validated; {REMEDY}")
    return learnt


def _read_files(path: Path) -> Mapping[str, bytes]:
    """Every file of a bundle by name, each with the digest that `bundle.json` promises."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle; {REMEDY}")
    promised = _promised(path)
    names = [
        name for name in KINDS["bundle"] if name != CONFORMAL or not isinstance(promised, dict) or name in promised
    ]
    if missing := [name for name in names if not (path / name).is_file()]:
        raise BundleError(f"{path}: not a whole bundle, {', '.join(missing)} missing; {REMEDY}")
    files = {name: (path / name).read_bytes() for name in names}
    for name, payload in files.items():
        if name == "bundle.json":
            continue
        if not isinstance(promised, dict) or promised.get(name) != hashlib.sha256(payload).hexdigest():
            raise BundleError(f"{path}: {name} is not the file that bundle.json promises; {REMEDY}")
    return files


def _promised(path: Path) -> object:
    """What `bundle.json` says of the other files; nothing where it is missing."""
    try:
        return read_json(path / "bundle.json").get("files") if (path / "bundle.json").is_file() else None
    except ArtifactError as error:
        raise BundleError(str(error)) from error


def _assemble(files: Mapping[str, bytes], wanted: Wanted) -> Bundle:
    calibration, classes, preprocess = (
        json.loads(files[name]) for name in ("calibration.json", "classes.json", "preprocess.json")
    )
    count = len(classes["classes"])
    limits = {name: int(preprocess[name]) for name in ("min_side_px", "max_pixels")}
    prepare, about = preprocess_from(preprocess), json.loads(files["bundle.json"])
    calibrator = calibrator_from(calibration, count)
    material = Material(files["model.onnx"], files["model.safetensors"], str(about["encoder"]), prepare, wanted.threads)
    gates = GATES | about.get("gates", {})

    def check(engine: Engine) -> None:
        check_reference(engine, calibrator, files["reference.npz"], gates[engine.precision])

    return Bundle(
        classes=tuple(classes["classes"]),
        positive_class=classes["positive_class"],
        calibrator=calibrator,
        conformal=conformal_from(json.loads(files[CONFORMAL]), count) if CONFORMAL in files else no_conformal(count),
        preprocess=prepare,
        digest=hashlib.sha256(files["bundle.json"]).hexdigest(),
        about=about,
        engine=choose(material, wanted, check),
        **limits,
    )
