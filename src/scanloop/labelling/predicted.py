"""What a model says of images, from the artifacts that hold it."""

from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.artifacts import read_json, read_table
from scanloop.errors import ArtifactError, LabellingError

TABLE_OF = {
    "queue.parquet": "probabilities", "predictions.parquet": "probabilities", "pseudo_labels.parquet": "soft",
}  # fmt: skip
"""Tables with a probability of each class, and the column that holds it."""


def model_probabilities(artifact: Path, classes: int) -> dict[str, list[float]]:
    """The model's probability of each class, of each slice id that it says anything of.

    Args:
        artifact: Of `acquire`, `evaluate` or `pseudo_label`.
        classes: How many there are.

    Raises:
        ArtifactError: It is none of these.
        LabellingError: The probabilities are of another number of classes.
    """
    table = next((name for name in TABLE_OF if (artifact / name).exists()), None)
    if table is None:
        raise ArtifactError(f"{artifact}: a queue, an evaluation or pseudo-labels tell probabilities; this is none")
    rows = read_table(artifact, table).drop_duplicates("slice_id")
    values = rows.get(TABLE_OF[table], pd.Series([None] * len(rows), index=rows.index, dtype=object))
    said = values.notna()
    if wrong := {len(one) for one in values[said]} - {classes}:
        raise LabellingError(f"{artifact}: probabilities of {wrong.pop()} classes, and there are {classes}")
    return {slice_id: [*map(float, one)] for slice_id, one in zip(rows["slice_id"][said], values[said], strict=True)}


def model_labels(queue: Path, catalog: Path) -> dict[str, str]:
    """The model's class of each image of a queue that it says anything of.

    Args:
        queue: Artifact of `acquire`.
        catalog: Artifact of `ingest` that it was made from: the order of the classes.

    Raises:
        LabellingError: The queue holds no probabilities, or of another number of classes.
    """
    classes = read_json(catalog / "catalog.json")["classes"]
    said = model_probabilities(queue, len(classes))
    if not said:
        raise LabellingError(
            f"{queue} does not say what a model thinks of its images, so nobody can disagree with it: run acquire "
            "again, or take another policy of double reading"
        )
    return {slice_id: str(classes[int(np.argmax(one))]) for slice_id, one in said.items()}
