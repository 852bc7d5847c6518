"""From a file's bytes to a slice: bounded, and every failure has a reason."""

import PIL.Image


def shrink(picture: PIL.Image.Image, short_side_px: int) -> PIL.Image.Image:
    """Picture whose short side is at most this many pixels; a smaller one comes back as it is, never enlarged."""
    width, height = picture.size
    short = min(width, height)
    if short <= short_side_px:
        return picture
    size = (max(1, round(width * short_side_px / short)), max(1, round(height * short_side_px / short)))
    return picture.resize(size, PIL.Image.Resampling.BOX if short >= 2 * short_side_px else PIL.Image.Resampling.BILINEAR)
