"""Read a bundle: every file against its digest, then the network against its reference. Neither pickle nor torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scanloop.artifacts import KINDS, read_json, read_table
from scanloop.bundle import abstention, exemplars, points
from scanloop.bundle.engines.choice import Wanted, choose
from scanloop.bundle.engines.engine import Engine, Material
from scanloop.bundle.predict import Bundle
from scanloop.bundle.reference import GATES, check_reference, squares_in
from scanloop.calibration.calibrator import calibrator_from
from scanloop.calibration.conformal import conformal_from, no_conformal
from scanloop.cores import usable_cores
from scanloop.embedding.preprocess import preprocess_from
from scanloop.errors import ArtifactError, BundleError, ConfigError

CONFORMAL = "conformal.json"
"""A bundle that was sealed without it, before there were sets, is read as one that knows no thresholds."""

FROM_VERSION_2 = (points.FILE, abstention.FILE, abstention.FAMILIAR, exemplars.FILE)
"""Files that a bundle of version 1 has not: it labels by argmax and abstains from nothing."""

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


def check_files(path: Path) -> None:
    """Return if every file of a bundle is as its seal promises; the network is not run.

    Raises:
        BundleError: One is missing or changed; the message names it.
    """
    _read_files(path)


def _read_files(path: Path) -> Mapping[str, bytes]:
    """Every file of a bundle by name, each with the digest that `bundle.json` promises."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle; {REMEDY}")
    seal = _seal(path)
    promised = seal.get("files")
    names = list(KINDS["bundle"])
    if isinstance(promised, dict) and seal.get("schema_version", 1) < 2:
        names = [name for name in names if name in promised or name not in (CONFORMAL, *FROM_VERSION_2)]
    if missing := [name for name in names if not (path / name).is_file()]:
        raise BundleError(f"{path}: not a whole bundle, {', '.join(missing)} missing; {REMEDY}")
    files = {name: (path / name).read_bytes() for name in names}
    for name, payload in files.items():
        if name == "bundle.json":
            continue
        if not isinstance(promised, dict) or promised.get(name) != hashlib.sha256(payload).hexdigest():
            raise BundleError(f"{path}: {name} is not the file that bundle.json promises; {REMEDY}")
    return files


def _seal(path: Path) -> dict[str, Any]:
    """Content of `bundle.json`; nothing where it is missing."""
    try:
        return read_json(path / "bundle.json") if (path / "bundle.json").is_file() else {}
    except ArtifactError as error:
        raise BundleError(str(error)) from error


def _assemble(files: Mapping[str, bytes], wanted: Wanted) -> Bundle:
    calibration, classes, preprocess = (
        json.loads(files[name]) for name in ("calibration.json", "classes.json", "preprocess.json")
    )
    count, about = len(classes["classes"]), json.loads(files["bundle.json"])
    prepare, calibrator = preprocess_from(preprocess), calibrator_from(calibration, count)
    material = Material(
        onnx=files["model.onnx"],
        weights=files["model.safetensors"],
        encoder=str(about["encoder"]),
        preprocess=prepare,
        threads=max(1, (wanted.threads or usable_cores()) // wanted.passes),
        passes=wanted.passes,
        sample=squares_in(files["reference.npz"]),
    )
    gates = GATES | about.get("gates", {})

    def check(engine: Engine) -> None:
        check_reference(engine, calibrator, files["reference.npz"], gates[engine.precision])

    beside: dict[str, Any] = {name: int(preprocess[name]) for name in ("min_side_px", "max_pixels")}
    beside |= _beside(files, list(classes["classes"]), classes["positive_class"])
    return Bundle(
        classes=tuple(classes["classes"]),
        positive_class=classes["positive_class"],
        calibrator=calibrator,
        conformal=conformal_from(json.loads(files[CONFORMAL]), count) if CONFORMAL in files else no_conformal(count),
        preprocess=prepare,
        digest=hashlib.sha256(files["bundle.json"]).hexdigest(),
        about=about,
        engine=choose(material, wanted, check),
        gates=gates,
        **beside,
    )


def _beside(files: Mapping[str, bytes], classes: list[str], positive: str) -> dict[str, Any]:
    """What a bundle says beside probabilities; one of version 1 says nothing."""
    if abstention.FILE not in files:
        nothing = points.argmax_only(classes.index(positive)), abstention.no_abstention(), exemplars.no_exemplars()
        return dict(zip(("points", "abstention", "exemplars"), nothing, strict=True))
    return {
        "points": points.points_from(json.loads(files[points.FILE]), len(classes)),
        "abstention": abstention.abstention_from(json.loads(files[abstention.FILE]), files[abstention.FAMILIAR]),
        "exemplars": exemplars.exemplars_from(files[exemplars.FILE], len(classes)),
    }
