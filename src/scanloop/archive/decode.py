"""From a file's bytes to a slice: bounded, and every failure has a reason."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image

from scanloop.archive.jpeg import decode_jpeg, jpeg_size
from scanloop.errors import ImageError
from scanloop.types import Image

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""Formats that are decoded. Others of Pillow's (EPS starts Ghostscript) are no business of an archive of slices."""

_MAGIC_AND_END = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    (b"GIF8", b";"),
    (b"II*\x00", b""),
    (b"MM\x00*", b""),
    (b"\x00\x00\x00\x0cjP  ", b"\xff\xd9"),
)
"""How files of a format begin and, where the format says so, end: tells a cut file from a broken or a foreign one."""

_DEEP_MODES = {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
"""Pillow's modes with more than 8 bits a channel, and their bits."""


@dataclass(frozen=True)
class Decoded:
    """A slice and what its source said of it.

    Attributes:
        image: uint8 (h, w) grey or (h, w, 3) RGB, range 0..255.
        bits: Bits a channel in the source: 8, 16 or 32.
        height: Of the source, in pixels.
        width: Of the source, in pixels.
    """

    image: Image
    bits: int
    height: int
    width: int


def decode(payload: bytes, *, min_side_px: int, max_pixels: int, short_side_px: int | None = None) -> Image:
    """Slice held by an encoded image; a colour image whose channels are equal comes back grey.

    Images of more than 8 bits are stretched linearly from their darkest to their brightest pixel; transparent pixels
    stand on black; of an animation or a multi-page file the first picture is taken.

    Args:
        payload: Bytes of a file in one of `FORMATS`.
        min_side_px: Least short side, in pixels.
        max_pixels: Largest height times width, checked from the header before anything is decoded.
        short_side_px: What the slice will be shrunk to. A JPEG twice, four or eight times as large is halved that
            often while it is decoded, which takes a third of the time.

    Returns:
        uint8 (h, w) grey or (h, w, 3) RGB, range 0..255; its short side is at least `short_side_px`, or the source's.

    Raises:
        ImageError: The bytes are no such image; its reason is one of `scanloop.artifacts.QUARANTINE_REASONS`.
    """
    limits = {"min_side_px": min_side_px, "max_pixels": max_pixels}
    return decode_with_facts(payload, **limits, short_side_px=short_side_px).image


def decode_with_facts(
    payload: bytes, *, min_side_px: int, max_pixels: int, short_side_px: int | None = None
) -> Decoded:
    """As `decode`, with the bit depth and the size of the source."""
    if not payload:
        raise ImageError("empty_file", "the file holds no bytes")
    if (size := jpeg_size(payload)) is not None:
        check_size(*size, min_side_px=min_side_px, max_pixels=max_pixels)
        if (image := decode_jpeg(payload, size, short_side_px)) is not None:
            return Decoded(grey_if_equal(image), 8, *size)
    with warnings.catch_warnings():  # Pillow warns of bombs and odd metadata; the limits here decide
        warnings.simplefilter("ignore")
        picture = _open(payload)
        check_size(picture.height, picture.width, min_side_px=min_side_px, max_pixels=max_pixels)
        try:
            picture.load()
            bits = _DEEP_MODES.get(picture.mode, 8)
            return Decoded(_to_slice(picture), bits, picture.height, picture.width)
        except Exception as error:
            raise ImageError(_reason(payload, error), f"{picture.format}: {_line(error)}") from error


def check_size(height: int, width: int, *, min_side_px: int, max_pixels: int) -> None:
    """Return if an image of this size may come in.

    Raises:
        ImageError: It is too small or too large.
    """
    if min(height, width) < min_side_px:
        raise ImageError("too_small", f"{width}x{height} pixels; the short side must be at least {min_side_px}")
    if height * width > max_pixels:
        raise ImageError("too_large", f"{width}x{height} pixels; at most {max_pixels} are decoded")


def grey_if_equal(image: Image) -> Image:
    """The slice as (h, w) when it is grey or its three channels are equal, unchanged otherwise."""
    if image.ndim == 2:
        return image
    red, green, blue = (image[..., channel] for channel in range(3))
    return np.ascontiguousarray(red) if np.array_equal(red, green) and np.array_equal(red, blue) else image


def encode_png(image: Image) -> bytes:
    """Lossless PNG of a slice, uint8 (h, w) or (h, w, 3); the same pixels give the same bytes."""
    sink = io.BytesIO()
    # Level 1 takes a third of the default's time for a few per cent more bytes: slices are noisy.
    PIL.Image.fromarray(image).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def shrink(picture: PIL.Image.Image, short_side_px: int) -> PIL.Image.Image:
    """Picture whose short side is at most this many pixels; a smaller one comes back as it is, never enlarged."""
    width, height = picture.size
    short = min(width, height)
    if short <= short_side_px:
        return picture
    size = (max(1, round(width * short_side_px / short)), max(1, round(height * short_side_px / short)))
    sampling = PIL.Image.Resampling.BOX if short >= 2 * short_side_px else PIL.Image.Resampling.BILINEAR
    return picture.resize(size, sampling)


def shrink_brightness(brightness: npt.NDArray[np.float32], short_side_px: int) -> Image:
    """Brightness, float32 (h, w) or (h, w, 3) in 0..255, shrunk as `shrink` does and only then rounded to 8 bits."""
    channels = np.atleast_3d(brightness)
    shrunk = [
        np.asarray(shrink(PIL.Image.fromarray(np.ascontiguousarray(channels[..., channel])), short_side_px))
        for channel in range(channels.shape[2])
    ]
    rounded = np.rint(np.clip(np.stack(shrunk, axis=-1), 0, 255)).astype(np.uint8)
    return grey_if_equal(rounded) if brightness.ndim == 3 else np.ascontiguousarray(rounded[..., 0])


def _open(payload: bytes) -> PIL.Image.Image:
    """Picture with its header read and no pixel decoded."""
    try:
        return PIL.Image.open(io.BytesIO(payload), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError("too_large", _line(error)) from error
    except Exception as error:
        if _cut_short(payload) is None:
            raise ImageError("not_an_image", f"the bytes begin with {payload[:8]!r}, no format of {FORMATS}") from error
        raise ImageError(_reason(payload, error), f"the header is not whole: {_line(error)}") from error


def _to_slice(picture: PIL.Image.Image) -> Image:
    if picture.mode in _DEEP_MODES:
        return _stretch(np.asarray(picture, dtype=np.float64))
    if picture.mode in {"1", "L"} and "transparency" not in picture.info:
        return np.array(picture.convert("L"))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = PIL.Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = PIL.Image.alpha_composite(black, picture)
    return grey_if_equal(np.array(picture.convert("RGB")))


def _stretch(values: npt.NDArray[np.float64]) -> Image:
    """Finite values stretched linearly to 0..255; a constant image becomes black."""
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    # Divided before subtracting: the difference of two large floats may not be finite.
    scaled = (np.where(finite, values, low) / 2 - low / 2) / (high / 2 - low / 2)
    return np.rint(255 * scaled).astype(np.uint8)


def _reason(payload: bytes, error: Exception) -> str:
    if "truncated" in str(error).lower() or _cut_short(payload):
        return "truncated"
    return "unreadable"


def _cut_short(payload: bytes) -> bool | None:
    """Whether the end that the format promises is missing; None when the bytes begin like no format known here."""
    for magic, end in _MAGIC_AND_END:
        if payload.startswith(magic):
            return end not in payload[-64:]
    if payload[:4] == b"RIFF" and payload[8:12] == b"WEBP":
        return len(payload) < 8 + int.from_bytes(payload[4:8], "little")
    return None


def _line(error: Exception) -> str:
    """First line of an error's text, without what differs from run to run."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if " at 0x" not in text else type(error).__name__
