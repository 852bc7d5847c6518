"""How often text in pixels is found, how often it is seen where there is none, and at what rate.

Run from the repository: python benchmarks/burned_in.py [IMAGES a set]. Needs the real images (SCANLOOP_DATA). What is
flagged without being drawn is counted as it is; whether it is text is for a person to say (--sheet FILE draws it).
"""

import argparse
import io
import json
import os
import platform
import tarfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from scanloop.archive.burned_in import has_text, text_rows
from scanloop.archive.decode import shrink
from scanloop.archive.readers import read
from scanloop.archive.readers.record import Frame
from scanloop.config import IngestConfig
from scanloop.sources import DicomSource
from scanloop.types import Image

SETS = {"chest X-rays": "nih_cxr14_1024.tar", "heads": "brain_mri_oc.tar", "children's chests": "kermany_cxr_224.tar"}
HEIGHTS_PX = (5, 6, 8, 10, 14, 20)
TEXTS = ("DOE^JANE", "Martin, Jean", "ID 0048213", "12/03/1961", "St Mary Hosp", "ACC 99120-4", "2019-07-22 11:42")
SIDE_PX = 256


def main() -> None:
    """Measure and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=300)
    parser.add_argument("--sheet", type=Path, help="PNG of what is flagged in the images as they are")
    options = parser.parse_args()
    data = Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    sets = {name: _slices(data / file, options.images) for name, file in SETS.items()}
    sets["DICOM samples"] = _dicom_slices(data / "dicom_samples.tar")
    started = time.perf_counter()
    flagged = {name: [image for image in images if has_text(image)] for name, images in sets.items()}
    seconds = time.perf_counter() - started
    if options.sheet:
        _sheet([image for images in flagged.values() for image in images], options.sheet)
    result = {
        "benchmark": "burned_in",
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "slices_per_second_one_core": sum(map(len, sets.values())) / seconds,
        "flagged_as_they_are": {name: [len(flagged[name]), len(images)] for name, images in sets.items()},
        "found_of_drawn_by_height_px": {
            name: {height: _found(images, height) for height in HEIGHTS_PX} for name, images in sets.items()
        },
    }
    print(json.dumps(result))


def _found(images: list[Image], height_px: int) -> list[int]:
    """Slices in which a drawn line is found, of those on which one fits that held none before."""
    generator = np.random.default_rng(height_px)
    blank = [image for image in images[:100] if not has_text(image)]
    drawn = [one for one in (_draw(image, height_px, generator) for image in blank) if one is not None]
    return [sum(has_text(image) for image in drawn), len(drawn)]


def _draw(image: Image, height_px: int, generator: np.random.Generator) -> Image | None:
    """A line in a corner, white on what is dark and black on what is bright."""
    font = PIL.ImageFont.load_default(size=height_px / 0.73)
    text = TEXTS[generator.integers(len(TEXTS))]
    picture = PIL.Image.fromarray(image).convert("L")
    canvas = PIL.ImageDraw.Draw(picture)
    width = int(canvas.textlength(text, font=font))
    if width + 6 > picture.width or 2 * height_px > picture.height:
        return None
    left = (3, picture.width - width - 3)[generator.integers(2)]
    top = (3, picture.height - int(1.6 * height_px) - 3)[generator.integers(2)]
    behind = np.median(np.asarray(picture)[top : top + 2 * height_px, left : left + width])
    canvas.text((left, top), text, font=font, fill=240 if behind < 130 else 15)
    return np.asarray(picture)


def _slices(path: Path, count: int) -> list[Image]:
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.name.lower().endswith((".png", ".jpg", ".jpeg"))]
        chosen = sorted(np.random.default_rng(0).permutation(len(members))[:count])
        files = [tar.extractfile(members[row]) for row in chosen]
        return [_stored(PIL.Image.open(io.BytesIO(file.read())).convert("L")) for file in files if file is not None]


def _dicom_slices(path: Path) -> list[Image]:
    """The first frame of each distinct object that can be decoded, of at least 32 px."""
    found: dict[str, Image] = {}
    for raw in read(IngestConfig(source=DicomSource(path=str(path), deidentify=False))):
        if raw.fault is None and isinstance(raw.payload, Frame) and raw.payload.sha256 not in found:
            try:
                brightness, _ = raw.payload.load()
            except Exception:  # noqa: S112  what cannot be decoded is quarantined by an ingest
                continue
            if min(brightness.shape[:2]) >= 32:
                found[raw.payload.sha256] = _stored(PIL.Image.fromarray(brightness.astype(np.uint8)))
    return list(found.values())


def _stored(picture: PIL.Image.Image) -> Image:
    return np.asarray(shrink(picture, SIDE_PX))


def _sheet(images: list[Image], path: Path) -> None:
    columns = 8
    page = PIL.Image.new("RGB", (columns * SIDE_PX, -(-len(images) // columns) * SIDE_PX))
    for place, image in enumerate(images):
        picture = PIL.Image.fromarray(image).convert("RGB")
        for top, left, bottom, right in text_rows(image).tolist():
            PIL.ImageDraw.Draw(picture).rectangle((left - 1, top - 1, right, bottom), outline="red")
        corner = (place % columns * SIDE_PX, place // columns * SIDE_PX)
        page.paste(picture.crop((0, 0, SIDE_PX, SIDE_PX)), corner)
    page.save(path)


if __name__ == "__main__":
    main()
