"""Take a patient out of model bundles, and say which models learnt from them: weights are made anew, not erased."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_json, read_table, write_bytes, write_json
from scanloop.bundle import abstention, exemplars
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.reference import to_npz
from scanloop.calibration.calibrator import calibrator_from
from scanloop.embedding.preprocess import Preprocess, preprocess_from
from scanloop.provenance import file_digest

SEAL = "bundle.json"
TABLES_OF_LEARNT = ("out_of_fold.parquet", "learnt.parquet")


def bundles(run: Path) -> Iterator[Path]:
    """Model directories in a run's folder, those that a local MLflow keeps included."""
    yield from sorted(path.parent for path in run.rglob(SEAL) if ".scratch" not in path.parts)


def reference_digests(run: Path, slice_ids: tuple[str, ...]) -> list[str]:
    """Digests of the patient's slices as any bundle of the run may hold them for its reference."""
    manifest = read_table(run / "catalog", "manifest")
    rows = manifest[manifest["slice_id"].isin(slice_ids)]
    kinds = {_preprocess(bundle) for bundle in bundles(run)}
    images = [image for _, _, some in iterate_shards(run / "catalog", rows) for image in some]
    return sorted({_digest(kind.square(image)) for kind in kinds for image in images})


def erase_from_bundle(bundle: Path, erased: frozenset[str]) -> bool:
    """Put black squares in the place of the patient's in a bundle's reference; whether there were any.

    The black squares get the probabilities that the network gives them, so that the reference still tells a broken
    engine.

    Args:
        bundle: Model directory.
        erased: Digests of squares.
    """
    with np.load(bundle / "reference.npz", allow_pickle=False) as stored:
        squares, expected = stored["images"].copy(), stored["probabilities"].copy()
    hit = np.array([_digest(square) in erased for square in squares], dtype=bool)
    if not hit.any():
        return False
    squares[hit] = 0
    engine = OnnxEngine((bundle / "model.onnx").read_bytes(), _preprocess(bundle), threads=1)
    calibrator = calibrator_from(read_json(bundle / "calibration.json"), expected.shape[1])
    expected[hit] = calibrator(engine.run_squares(squares[hit]).logits)
    write_bytes(bundle / "reference.npz", to_npz(squares, expected))
    return True


def erase_vectors(bundle: Path, slice_ids: Collection[str]) -> None:
    """Take the patient's images out of a bundle's exemplars, and out of what is familiar to its model.

    The threshold of strangeness is then that of the images that are left.

    Args:
        bundle: Model directory; of version 1 it holds no vectors.
        slice_ids: The patient's.
    """
    if not (bundle / abstention.FILE).exists():
        return
    shown = exemplars.exemplars_from((bundle / exemplars.FILE).read_bytes())
    write_bytes(bundle / exemplars.FILE, shown.without(slice_ids).to_npz())
    rule = abstention.abstention_from(
        read_json(bundle / abstention.FILE), (bundle / abstention.FAMILIAR).read_bytes()
    ).without(slice_ids)
    write_bytes(bundle / abstention.FAMILIAR, rule.familiar.to_npz())
    write_json(bundle / abstention.FILE, rule.as_json())


def seal_again(bundle: Path) -> None:
    """Give a bundle the digests of its files as they are now, and say how many of what it learnt from are not listed.

    `counts` stay: they say what the weights learnt from, whoever left the lists since.
    """
    about = read_json(bundle / SEAL)
    files = {name: file_digest(bundle / name) for name in about["files"]}
    if files == about["files"]:
        return
    listed = read_table(bundle, "learnt.parquet")["source"].value_counts()
    erased = {
        source: sum(by_class.values()) - int(listed.get(source, 0)) for source, by_class in about["counts"].items()
    }
    write_json(bundle / SEAL, about | {"files": files, "erased": erased})


def learnt_from(run: Path, slice_ids: tuple[str, ...]) -> list[dict[str, str]]:
    """Models in a run's folder whose weights hold something of the patient: where they stand, and why."""
    leaving = set(slice_ids)
    encoders = {path.parent: _encoder_reason(path.parent, run / "catalog", leaving) for path in _encoders(run)}
    found = [_entry(run, encoder, reason) for encoder, reason in encoders.items() if reason]
    for bundle in bundles(run):
        tables = [bundle / name for name in TABLES_OF_LEARNT if (bundle / name).exists()]
        if any(leaving & set(pq.read_table(table)["slice_id"].to_pylist()) for table in tables):
            found.append(_entry(run, bundle, "learnt from the patient's labelled slices"))
        elif _learnt_pseudo_labels(bundle) and leaving & _promoted(run):
            found.append(_entry(run, bundle, "may have learnt from the patient's pseudo-labelled slices"))
        elif any(encoders.values()):
            found.append(_entry(run, bundle, "stands on an encoder that may have learnt from the patient's slices"))
    return found


def foreign_weights(run: Path) -> list[str]:
    """Names of weights that came from outside: nobody here can tell whom they learnt from."""
    return sorted({str(weights) for path in _encoders(run) if (weights := _hyper(path.parent).get("weights"))})


def _encoders(run: Path) -> list[Path]:
    return sorted(path for path in run.glob("*/encoder.json"))


def _hyper(encoder: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(encoder / "encoder.json")["hyperparameters"]
    return values


def _encoder_reason(encoder: Path, catalog: Path, leaving: set[str]) -> str | None:
    manifest = read_table(catalog, "manifest")
    trained = set(manifest.loc[manifest["split"] == "train", "slice_id"])
    if read_json(encoder / "encoder.json")["method"] == "none" or not leaving & trained:
        return None
    certain = len(trained) <= int(_hyper(encoder).get("max_slices", 0))
    return f"{'learnt' if certain else 'may have learnt'} from the patient's slices without labels"


def _learnt_pseudo_labels(bundle: Path) -> bool:
    return any(read_json(bundle / SEAL)["counts"].get("pseudo_labelled", {}).values())


def _promoted(run: Path) -> set[str]:
    path = run / "pseudo_labels"
    if not (path / "pseudo_labels.parquet").exists():
        return set()
    table: pd.DataFrame = read_table(path, "pseudo_labels.parquet")
    return set(table.loc[table["promoted"].fillna(False).astype(bool), "slice_id"])


def _entry(run: Path, place: Path, reason: str) -> dict[str, str]:
    return {"model": str(place.relative_to(run)), "why": reason}


def _preprocess(bundle: Path) -> Preprocess:
    return preprocess_from(read_json(bundle / "preprocess.json"))


def _digest(square: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(square).tobytes()).hexdigest()
