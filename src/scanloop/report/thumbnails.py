"""Images of the archive as the page shows them: small, as the model sees them, under a short name."""

import base64
import io
from collections.abc import Iterable

import PIL.Image

from scanloop.archive.shards import images_by_id
from scanloop.report.material import Material
from scanloop.types import Image

THUMBNAIL_PX = 240
"""Longest side of an image on the page: twice what is shown, for dense screens."""


def thumbnail_uri(image: Image) -> str:
    """Image as a PNG in a data URI, shrunk to the page's size."""
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), PIL.Image.Resampling.BOX)
    sink = io.BytesIO()
    picture.save(sink, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def images_of(material: Material, slice_ids: Iterable[str]) -> dict[str, Image]:
    """Slices of the catalog by id; ids that it does not hold are left out."""
    manifest = material.manifest[material.manifest["slice_id"].isin(set(slice_ids))]
    return images_by_id(material.artifacts["catalog"], manifest)


def short_names(uris: list[str]) -> list[str]:
    """Last part of each uri, with the folder before it where two would read the same."""
    names = [uri.rstrip("/").rpartition("/")[2] for uri in uris]
    if len(set(names)) == len(names):
        return names
    return ["/".join(uri.rstrip("/").split("/")[-2:]) for uri in uris]
