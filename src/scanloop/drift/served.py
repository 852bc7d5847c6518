"""The confidence of a model at work, from samples of what it served, beside that on the images it was measured on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.artifacts import read_table
from scanloop.errors import ArtifactError
from scanloop.tables import SAMPLES
from scanloop.types import Float

COLUMNS = ("sha256", "time", "confidence", "positive", "model_digest")


@dataclass(frozen=True)
class Confidences:
    """How sure a model is of some images.

    Attributes:
        confidence: (n,) calibrated probability of the most probable class.
        positive: (n,) whether that is the positive class.
    """

    confidence: Float
    positive: "np.ndarray[tuple[int], np.dtype[np.bool_]]"


def served_confidences(folder: Path, model_digest: str | None = None) -> Confidences:
    """What one model said of the images that `python -m serving --sample-to FOLDER` drew; equal images count once.

    Args:
        folder: With `samples-*.parquet`.
        model_digest: Of the bundle; that of the latest sample where it is None. Images that could not be read have no
            confidence and are left out.

    Raises:
        ArtifactError: There are no samples, or a file of them is damaged.
    """
    files = sorted(folder.glob("samples-*.parquet"))
    if not files:
        raise ArtifactError(f"{folder}: no samples; serve with --sample-to {folder}, and wait for the first file")
    schema = pa.schema([SAMPLES.field(name) for name in COLUMNS])
    tables = []
    for path in files:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                tables.append(file.read(list(COLUMNS)).cast(schema))
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise ArtifactError(f"{path} is no file of samples ({error}); move it away") from error
    rows = pa.concat_tables(tables).to_pandas().dropna(subset="confidence").sort_values("time", kind="stable")
    digest = model_digest or (rows["model_digest"].iloc[-1] if len(rows) else "")
    rows = rows[rows["model_digest"] == digest].drop_duplicates("sha256")
    return Confidences(rows["confidence"].to_numpy(np.float64), rows["positive"].to_numpy(bool))


def measured_confidences(evaluation: Path, kind: str, positive_class: str) -> Confidences:
    """What the deployed model said of its hold-out, slice by slice.

    Args:
        evaluation: With `predictions.parquet`.
        kind: "test" or "cross_validation", as in `metrics.json`.
        positive_class: As the evaluation names it.
    """
    rows = read_table(evaluation, "predictions.parquet", ["slice_id", "split", "label", "given_label", "confidence"])
    rows = rows[(rows["split"] == kind) & rows["given_label"].notna()].drop_duplicates("slice_id")
    return Confidences(rows["confidence"].to_numpy(np.float64), (rows["label"] == positive_class).to_numpy(bool))
