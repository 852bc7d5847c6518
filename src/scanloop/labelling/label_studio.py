"""Label Studio: the open batch as projects to import there, and its JSON export back into the store.

Formats of Label Studio 1.23: https://labelstud.io/guide/tasks and https://labelstud.io/guide/export.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from scanloop.artifacts import write_bytes, write_json
from scanloop.errors import LabellingError
from scanloop.labelling.batch import Batch, Wanted, write_images
from scanloop.labelling.double_reading import BAD_IMAGE, UNSURE
from scanloop.labelling.importing import Foreign

CHOICES, IMAGE = "answer", "image"
MOST_HOTKEYS = 9
LARGEST_FILE_BYTES = 512 * 1024 * 1024
Predictions = Mapping[str, Sequence[float]]


def export_projects(
    batch: Batch,
    catalog: Path,
    output: Path,
    *,
    projects: int = 2,
    image_url: str | None = None,
    predictions: Predictions | None = None,
    model_version: str = "",
) -> list[int]:
    """Write images, the labelling configuration and one file of tasks a project; says how many tasks each has.

    Project k holds the images that lack k readings or more, so that as many projects as there are readings of an image
    keep its readers blind to one another; each but the first has an order of its own. What leaves is the picture, the
    task's number and the batch's name: no id of a patient or a slice, no uri.

    Args:
        batch: From `open_batch`.
        catalog: Artifact of `ingest` that the queue was made from.
        output: Folder to fill.
        projects: How many.
        image_url: What an image's name is put after; Label Studio's local files by default, its document root being
            the folder that `output` is in.
        predictions: The model's probabilities of each slice id, which annotators then see; none keeps them blind.
        model_version: Written beside each prediction.

    Raises:
        LabellingError: No image lacks that many readings, or the catalog does not hold an image.
    """
    parts = [[one for one in batch.tasks if one.lacking > number] for number in range(projects)]
    if not all(parts):
        raise LabellingError(
            f"no image of wave {batch.wave} lacks {projects} readings: take fewer --projects, or publish with "
            "--double-reading"
        )
    url = f"/data/local-files/?d={output.absolute().name}/images/" if image_url is None else image_url
    write_images(catalog, parts[0], output / "images")
    write_bytes(output / "labelling_config.xml", labelling_config(batch.classes).encode())
    for number, part in enumerate(parts):
        if number:
            random.Random(f"{batch.name}/{number}").shuffle(part)  # noqa: S311  an order, no secret
        tasks = [_task(one, batch, url, predictions or {}, model_version) for one in part]
        write_bytes(output / f"project-{number + 1}.json", (json.dumps(tasks, indent=1) + "\n").encode())
    counts = [len(part) for part in parts]
    write_json(output / "batch.json", {"wave": batch.wave, "batch": batch.name, "tasks": counts})
    return counts


def labelling_config(classes: Sequence[str]) -> str:
    """Label Studio's labelling configuration: one choice an image, keys 1 to 9 for classes, U unsure, B bad image."""
    keys = [str(number + 1) if number < MOST_HOTKEYS else "" for number in range(len(classes))]
    rows = [
        f"    <Choice value={quoteattr(name)}" + (f" hotkey={quoteattr(key)}/>" if key else "/>")
        for name, key in zip((*classes, UNSURE, BAD_IMAGE), (*keys, "u", "b"), strict=True)
    ]
    return "\n".join([
        "<View>",
        f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true" brightnessControl="true" '
        'contrastControl="true"/>',
        f'  <Choices name="{CHOICES}" toName="{IMAGE}" choice="single" required="true" showInLine="true">',
        *rows,
        "  </Choices>",
        "</View>",
        "",
    ])  # fmt: skip


def read_export(path: Path, readers: Mapping[str, str]) -> Iterator[Foreign]:
    """Readings in Label Studio's JSON export, cancelled ones and drafts left out.

    Args:
        path: The file, of the format "JSON".
        readers: Name of the reader by the annotator's e-mail or number; others are taken for the reader's name.

    Raises:
        LabellingError: The file is too large, or no such export.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise LabellingError(f"{path} is larger than {LARGEST_FILE_BYTES // 2**20} MiB")
        tasks = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LabellingError(f"{path} is no JSON export of Label Studio ({error})") from error
    if not isinstance(tasks, list) or not all(isinstance(one, dict) for one in tasks):
        raise LabellingError(f"{path} is no JSON export of Label Studio: export as JSON, not as JSON-MIN or CSV")
    for number, task in enumerate(tasks, start=1):
        data = _mapping(task.get("data"))
        about = data.get("task"), data.get("batch")
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            yield Foreign(f"task {number} of the file", None, None, None)
            continue
        for place, annotation in enumerate(annotations, start=1):
            one = _mapping(annotation)
            if not one.get("was_cancelled"):
                yield _reading(f"task {number} of the file, annotation {place}", about, one, readers)


def _task(one: Wanted, batch: Batch, url: str, predictions: Predictions, model_version: str) -> dict[str, Any]:
    task: dict[str, Any] = {"data": {IMAGE: url + one.file, "task": one.task, "batch": batch.name}}
    if (said := predictions.get(one.slice_id)) is not None:
        best = max(range(len(said)), key=said.__getitem__)
        choice = {"choices": [batch.classes[best]]}
        result = [{"from_name": CHOICES, "to_name": IMAGE, "type": "choices", "value": choice}]
        task["predictions"] = [{"model_version": model_version, "score": said[best], "result": result}]
    return task


def _reading(place: str, about: tuple[Any, Any], one: Mapping[str, Any], readers: Mapping[str, str]) -> Foreign:
    number, batch = about
    task = number if isinstance(number, int) and not isinstance(number, bool) else None
    return Foreign(place, task, _reader(one.get("completed_by"), readers), _answer(one.get("result")), batch=str(batch))


def _reader(who: Any, readers: Mapping[str, str]) -> str | None:
    """Label Studio tells a number, or an object with number and e-mail."""
    known = _mapping(who)
    names = [str(one) for one in (known.get("email"), known.get("id"), who) if isinstance(one, str | int)]
    return next((readers[name] for name in names if name in readers), names[0] if names else None)


def _answer(result: Any) -> str | None:
    """The one choice that was made; None where there is none, or more."""
    rows = [one for one in result if _mapping(one).get("from_name") == CHOICES] if isinstance(result, list) else []
    choices = [choice for one in rows for choice in _list(_mapping(_mapping(one).get("value")).get("choices"))]
    return choices[0] if len(choices) == 1 and isinstance(choices[0], str) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
