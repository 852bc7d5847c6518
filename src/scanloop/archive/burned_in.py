"""Whether text is probably burned into a slice: glyphs of one size that stand in a row. Flags; never removes."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from scanloop.archive.identities import is_hidden
from scanloop.errors import ImageError
from scanloop.types import Image

ATTRIBUTE, SUSPECTED = "burned_in_text", "suspected"
"""Row of the table of attributes that a suspected slice has."""
MAX_STROKE_PX = 5
"""Wider strokes are no text of a size that an archive's slices hold."""
CONTRASTS = (40, 80, 140)
"""Grey levels that a stroke stands out from its surroundings; the higher ones part glyphs that touch."""
GLYPH_HEIGHT_PX = (5, 32)
MAX_ASPECT = 1.7
"""Width of a glyph over its height; two that touch pass, a word that is one blob does not."""
MAX_GAP = 1.3
"""Between two glyphs of a row, over their height: a space, or the slash of a date."""
MIN_GLYPHS = 4
"""In a row: a side marker (L, R) names nobody."""

Boxes = npt.NDArray[np.int64]
"""int64 (n, 4): top, left, bottom, right, the last two exclusive, in pixels."""


def text_attributes(image: Image, source: object) -> dict[str, str]:
    """Attributes of a slice of a source that is de-identified: none, or that text is suspected in it.

    Args:
        image: uint8 (h, w) or (h, w, 3), range 0..255, as it is stored.
        source: Section of the configuration; where it is not de-identified, no slice is looked at.

    Raises:
        ImageError: Text is suspected, and the source asks for quarantine.
    """
    if not is_hidden(source) or not has_text(image):
        return {}
    if getattr(source, "burned_in", "flag") == "quarantine":
        raise ImageError(ATTRIBUTE, "text seems to be burned into the pixels; look at it, or set burned_in: flag")
    return {ATTRIBUTE: SUSPECTED}


def has_text(image: Image) -> bool:
    """Whether a slice probably holds a line of text.

    Args:
        image: uint8 (h, w) or (h, w, 3), range 0..255, as it is stored.
    """
    return len(text_rows(image)) > 0


def text_rows(image: Image) -> Boxes:
    """Rows of glyphs, brighter or darker than what is around them.

    Strokes are what a white or a black top-hat leaves; glyphs are their connected parts of fitting size, and a row is
    a chain of at least four of like height on one base line with the gaps of print. No letter is recognised.

    Args:
        image: uint8 (h, w) or (h, w, 3), range 0..255, as it is stored.

    Returns:
        int64 (rows, 4): top, left, bottom, right, the last two exclusive, in pixels.
    """
    grey = image.max(axis=2) if image.ndim == 3 else image
    size = 2 * MAX_STROKE_PX - 1
    found = []
    for levels in (grey, 255 - grey):
        contrast = levels - ndimage.grey_opening(levels, size=(size, size))
        for least in CONTRASTS:
            found += _rows(_glyphs(contrast >= least))
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _glyphs(strokes: npt.NDArray[np.bool_]) -> Boxes:
    """Connected parts whose size and shape a glyph may have."""
    labels, count = ndimage.label(strokes, structure=np.ones((3, 3), dtype=bool))
    if count < MIN_GLYPHS:
        return np.empty((0, 4), np.int64)
    boxes = np.array([(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(labels)], dtype=np.int64)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    fill = areas / (heights * widths)
    low, high = GLYPH_HEIGHT_PX
    fits = (heights >= low) & (heights <= high) & (widths <= MAX_ASPECT * heights) & (fill >= 0.2)
    fits &= (fill <= 0.92) | (widths <= 0.5 * heights)  # a solid block is a letter only if it is a bar: I, l, 1
    return boxes[fits]


def _rows(boxes: Boxes) -> list[list[int]]:
    """Boxes of chains of glyphs."""
    if len(boxes) < MIN_GLYPHS:
        return []
    top, left, bottom, right = boxes.T
    heights, widths = bottom - top, right - left
    tall = np.maximum(heights[:, None], heights)
    gap = left - right[:, None]
    level = np.minimum(np.abs(bottom - bottom[:, None]), np.abs(top - top[:, None]))
    linked = (gap >= -1) & (gap <= np.maximum(2, MAX_GAP * tall)) & (left > left[:, None])
    linked &= (level <= np.maximum(1, 0.1 * tall)) & (np.minimum(heights[:, None], heights) >= 0.6 * tall)
    count, chain = connected_components(csr_array(linked), directed=False)
    found = []
    for number in np.flatnonzero(np.bincount(chain, minlength=count) >= MIN_GLYPHS):
        members = np.flatnonzero(chain == number)
        slack = max(1.0, 0.1 * float(np.median(heights[members])))
        members = members[np.abs(bottom[members] - np.median(bottom[members])) <= slack]  # on the base line
        wide = widths[members] >= 0.35 * heights[members]
        thin_and_alike = wide.sum() < 3 or len(np.unique(widths[members])) == 1  # the marks of a scale
        if len(members) >= MIN_GLYPHS and not thin_and_alike:
            box = boxes[members]
            found.append([*box[:, :2].min(axis=0).tolist(), *box[:, 2:].max(axis=0).tolist()])
    return found
