"""The report on consensus and readers: a table of images, and JSON on readers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from scanloop.artifacts import write_json, write_table
from scanloop.errors import LabellingError
from scanloop.labelling.consensus import Consensus, find_consensus, gather
from scanloop.labelling.predicted import model_probabilities
from scanloop.labelling.schema import Wave
from scanloop.labelling.store import Store


def measure_quality(store: Store, artifacts: Sequence[Path], propose: int) -> tuple[Consensus, dict[str, Any]]:
    """Consensus of what was read, and what is told of it.

    Args:
        store: The label store.
        artifacts: What holds the model's probabilities; of an image that stands in several the first counts.
        propose: Images to propose for another reading, at most.

    Raises:
        LabellingError: Nothing was ever published, or an artifact holds probabilities of other classes.
        ArtifactError: An artifact holds no probabilities.
    """
    with store.reading() as session:
        classes = session.scalars(select(Wave.classes).limit(1)).one_or_none()
    if classes is None:
        raise LabellingError("no wave was published into this label store: there is nothing to agree on")
    said: dict[str, list[float]] = {}
    for artifact in reversed(artifacts):
        said |= model_probabilities(artifact, len(classes))
    read = gather(store, said, classes)
    found = find_consensus(read, propose)
    readers = found.readers.astype(object).where(found.readers.notna(), None).to_dict("records")
    return found, {
        "images": len(found.images),
        "left_out": read.left_out,
        "read_by_several": int((found.images["readings"] > 1).sum()),
        "model_weight": found.model_weight,
        "readers": readers,
        "read_again": found.images.loc[found.images["read_again"]].sort_values("score")["slice_id"].tolist(),
    }


def write_quality(folder: Path, found: Consensus, facts: dict[str, Any]) -> None:
    """Write `quality.parquet`, a row an image, and `quality.json`."""
    write_table(folder, "quality.parquet", found.images)
    write_json(folder / "quality.json", facts)
