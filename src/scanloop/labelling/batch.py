"""What leaves for other tools: the open wave's images that lack readings, under names that tell nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from sqlalchemy import select

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_json, read_table
from scanloop.errors import LabellingError
from scanloop.labelling.importing import batch_of
from scanloop.labelling.schema import Task, Wave
from scanloop.labelling.store import Store


@dataclass(frozen=True)
class Wanted:
    """A task that lacks readings: its number, its image, and how many it lacks that are in nobody's hands."""

    task: int
    slice_id: str
    lacking: int

    @property
    def file(self) -> str:
        """Name of its image in files that leave."""
        return f"task-{self.task:08d}.png"


@dataclass(frozen=True)
class Batch:
    """The open wave: its number, its name in files, answers that give a label, and tasks, most wanted first."""

    wave: int
    name: str
    classes: tuple[str, ...]
    tasks: tuple[Wanted, ...]


def open_batch(store: Store) -> Batch:
    """The open wave's tasks that lack readings.

    Raises:
        LabellingError: No wave is open.
    """
    with store.reading() as session:
        wave = session.execute(select(Wave).where(Wave.closed_at.is_(None))).scalar_one_or_none()
        if wave is None:
            raise LabellingError("no wave is open: publish a queue first")
        columns = (Task.id, Task.slice_id, Task.slots)
        query = select(*columns).where(Task.wave_id == wave.id, Task.slots > 0).order_by(Task.rank)
        tasks = tuple(Wanted(row.id, row.slice_id, row.slots) for row in session.execute(query))
        return Batch(wave.id, batch_of(wave.queue_key), tuple(wave.classes), tasks)


def write_images(catalog: Path, tasks: Sequence[Wanted], folder: Path) -> None:
    """Write each task's image as the archive stores it: 8 bits after the window, PNG without any other field.

    Args:
        catalog: Artifact of `ingest` that the queue was made from.
        tasks: Whose images.
        folder: Where to.

    Raises:
        LabellingError: The catalog does not hold an image.
    """
    manifest = read_table(catalog, "manifest", ["slice_id", "shard", "offset", "length"])
    rows = manifest[manifest["slice_id"].isin({one.slice_id for one in tasks})]
    if len(rows) < len(tasks):
        name = read_json(catalog / "catalog.json")["data_digest"][:12]
        raise LabellingError(
            f"{catalog} ({name}) lacks {len(tasks) - len(rows)} images of the wave: give its own catalog"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = {one.slice_id: one.file for one in tasks}
    for _, ids, images in iterate_shards(catalog, rows):
        for slice_id, image in zip(ids, images, strict=True):
            PIL.Image.fromarray(image).save(folder / files[slice_id], format="PNG")
