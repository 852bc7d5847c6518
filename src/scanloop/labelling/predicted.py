"""What a model says of a queue's images, from the queue itself."""

from pathlib import Path

import numpy as np

from scanloop.artifacts import read_json, read_table
from scanloop.errors import LabellingError


def model_labels(queue: Path, catalog: Path) -> dict[str, str]:
    """The model's class of each image of a queue that it says anything of.

    Args:
        queue: Artifact of `acquire`.
        catalog: Artifact of `ingest` that it was made from: the order of the classes.

    Raises:
        LabellingError: The queue holds no probabilities, or of other classes.
    """
    rows, classes = read_table(queue, "queue.parquet"), read_json(catalog / "catalog.json")["classes"]
    said = rows.dropna(subset="probabilities") if "probabilities" in rows else rows.iloc[:0]
    if not len(said):
        raise LabellingError(
            f"{queue} does not say what a model thinks of its images, so nobody can disagree with it: run acquire "
            "again, or take another policy of double reading"
        )
    if wrong := {len(one) for one in said["probabilities"]} - {len(classes)}:
        raise LabellingError(f"{queue}: probabilities of {wrong.pop()} classes, and the catalog has {len(classes)}")
    chosen = np.stack(said["probabilities"].tolist()).argmax(axis=1)
    return {slice_id: str(classes[index]) for slice_id, index in zip(said["slice_id"], chosen, strict=True)}
