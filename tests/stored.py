"""Slices as a catalog stores them, for tests that compare them with what came in."""

from pathlib import Path

import pandas as pd

from scanloop.archive.shards import iterate_shards
from scanloop.types import Image


def stored_slices(catalog: Path, manifest: pd.DataFrame) -> dict[str, Image]:
    """Slices of some rows of a catalog's manifest, by slice_id."""
    shards = iterate_shards(catalog, manifest)
    return {slice_id: image for _, ids, images in shards for slice_id, image in zip(ids, images, strict=True)}
