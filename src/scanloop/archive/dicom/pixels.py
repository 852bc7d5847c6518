"""From a frame's stored values to grey values or colours: decoded, through DICOM's look-up tables, to 0..255."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import as_pixel_options

from scanloop.archive.decode import check_size
from scanloop.archive.dicom.header import DicomObject
from scanloop.errors import ImageError

Values = npt.NDArray[Any]
"""Any numeric type, (h, w) grey or (h, w, 3) RGB."""

DEFAULT_PERCENTILES = (1.0, 99.0)
"""Window of a frame of more than 8 bits that names none. The full range would give it away to a few pixels of metal,
of burned-in text or of padding; what is at most 8 bits deep was made to be looked at and keeps its full range."""

_SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")


@dataclass(frozen=True)
class Shown:
    """A frame after DICOM's look-up tables, and the values that stand for black and white.

    Attributes:
        values: Any numeric type, (h, w) or (h, w, 3).
        black: Value of black; above `white` where the frame is to be shown inverted.
        white: Value of white.
        bits: Bits a channel in the source.
    """

    values: Values
    black: float
    white: float
    bits: int

    def brightness(self) -> npt.NDArray[np.float32]:
        """float32 (h, w) or (h, w, 3), range 0..255, with as many levels as the values have."""
        span = self.white - self.black
        if not np.isfinite(span) or span == 0:
            return np.zeros(self.values.shape, np.float32)
        scaled = (np.nan_to_num(self.values.astype(np.float64), nan=self.black) - self.black) * (255 / span)
        return np.clip(scaled, 0, 255).astype(np.float32)


def show_frame(source: DicomObject, index: int, *, min_side_px: int, max_pixels: int) -> Shown:
    """One frame, decoded alone: modality table, first window, MONOCHROME1 inverted, palettes and YBR as RGB.

    Rescale and window may stand in the header, in the functional groups of all frames, or in those of this frame;
    the innermost counts. A window that breaks DICOM's rules counts as none.

    Args:
        source: The object.
        index: Of the frame, from 0.
        min_side_px: Least short side, in pixels.
        max_pixels: Largest height times width, checked before anything is decoded.

    Raises:
        ImageError: The frame is cut, damaged, too small or too large, or no decoder knows its encoding.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _check_header(source.dataset, min_side_px=min_side_px, max_pixels=max_pixels)
            stored, photometric = _decode(source, index)
            check_size(*stored.shape[:2], min_side_px=min_side_px, max_pixels=max_pixels)
            return _show(stored, photometric, frame_header(source.dataset, index))
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError("too_large", "the frame does not fit into the reader's memory") from error
        except Exception as error:  # pydicom has no base class for what a malformed element can raise
            raise ImageError("unreadable", f"the image elements are malformed ({type(error).__name__})") from error


def _check_header(dataset: Dataset, *, min_side_px: int, max_pixels: int) -> None:
    if missing := [name for name in _NEEDED if dataset.get(name) in (None, "")]:
        raise ImageError("unreadable", f"the header lacks {', '.join(missing)}")
    check_size(int(dataset.Rows), int(dataset.Columns), min_side_px=min_side_px, max_pixels=max_pixels)


def frame_header(dataset: Dataset, index: int) -> Dataset:
    """Elements that decide how a frame is shown, those of its functional groups laid over those of the header."""
    header = Dataset({tag: dataset[tag] for tag in dataset.keys() if tag.group == 0x0028})  # noqa: SIM118  # a Dataset iterates over elements
    header.file_meta = dataset.file_meta
    for name, position in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        groups = dataset.get(name) or []
        if position < len(groups):
            for inner in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in (groups[position].get(inner) or [])[:1]:
                    header.update(item)
    return header


def through_tables(stored: Values, header: Dataset) -> tuple[Values, bool]:
    """Stored grey values through the modality table and, if there is a usable one, the first window; whether so."""
    values = apply_modality_lut(stored, header)
    lut = header.get("VOILUTSequence")
    if not lut and (header.get("WindowCenter") is None or header.get("WindowWidth") is None):
        return values, False
    try:
        return apply_voi_lut(values, header), True
    except (ValueError, IndexError, TypeError, AttributeError, NotImplementedError):
        return values, False


def _decode(source: DicomObject, index: int) -> tuple[Values, str]:
    """Stored values of a frame and what they stand for; YBR comes back as RGB."""
    try:
        decoder = get_decoder(source.syntax)
    except NotImplementedError as error:
        private = not source.syntax.startswith("1.2.840.10008.")  # whose root may be a hospital's
        name = "of a private kind" if private else source.syntax.name
        raise ImageError("unsupported", f"transfer syntax {name}: no decoder knows it") from error
    options = as_pixel_options(source.dataset, transfer_syntax_uid=source.syntax, pixel_keyword=source.pixel_keyword)
    if source.pixel_vr is not None:
        options["pixel_vr"] = source.pixel_vr
    source.stream.seek(source.pixel_start)
    try:
        values, described = decoder.as_array(source.stream, index=index, **options)
    except MemoryError:
        raise
    except Exception as error:  # each plugin raises what it likes
        raise _failure(source, error) from error
    return values, str(described["photometric_interpretation"])


def _failure(source: DicomObject, error: Exception) -> ImageError:
    """Why a frame could not be decoded, in words that hold nothing of the file's own text."""
    name = source.syntax.name
    if source.syntax.is_encapsulated:
        source.stream.seek(source.pixel_start)
        if _SEQUENCE_END not in source.stream.read():
            return ImageError("truncated", f"{name}: the pixels end without their delimiter")
        if source.dataset.BitsAllocated == 1:
            return ImageError("unsupported", f"{name}: no decoder knows it with one bit a pixel")
        if "does not support" in str(error) or "missing dependencies" in str(error):
            return ImageError("unsupported", f"{name}: no decoder knows this variant")
        return ImageError("unreadable", f"{name}: the decoders refuse the frame ({type(error).__name__})")
    header = source.dataset
    bits = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated * source.frames
    if source.pixel_bytes < bits // 8:
        return ImageError("truncated", f"{source.pixel_bytes} bytes of pixels, {bits // 8} are promised")
    return ImageError("unreadable", f"{name}: the pixels cannot be read ({type(error).__name__})")


def _show(stored: Values, photometric: str, header: Dataset) -> Shown:
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        return Shown(colours, 0, np.iinfo(colours.dtype).max, bits)
    if photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        return Shown(stored, 0, 2**bits - 1, bits)
    values, windowed = through_tables(stored, header)
    black, white = _window_range(header) if windowed else _default_range(stored, values, header, bits)
    return Shown(values, white, black, bits) if photometric == "MONOCHROME1" else Shown(values, black, white, bits)


def _window_range(header: Dataset) -> tuple[float, float]:
    """What a window or a table of values of interest makes of the darkest and the brightest value."""
    if lut := header.get("VOILUTSequence"):
        return 0.0, float(2 ** int(lut[0].LUTDescriptor[2]) - 1)
    dark, bright = apply_voi_lut(np.array([-np.inf, np.inf]), header)
    return float(dark), float(bright)


def _default_range(stored: Values, values: Values, header: Dataset, bits: int) -> tuple[float, float]:
    """Full range of what is at most 8 bits deep, else `DEFAULT_PERCENTILES` of what is finite and not padding."""
    if bits <= 8 and not header.get("ModalityLUTSequence"):
        low = -(2 ** (bits - 1)) if header.get("PixelRepresentation") else 0
        ends = apply_modality_lut(np.array([low, low + 2**bits - 1]), header)
        return float(ends[0]), float(ends[1])
    counted = np.isfinite(values)
    if isinstance(padding := header.get("PixelPaddingValue"), int):
        limit = header.get("PixelPaddingRangeLimit", padding)
        counted &= (stored < min(padding, limit)) | (stored > max(padding, limit))
    kept = values[counted] if counted.any() else np.zeros(1)
    black, white = np.percentile(kept, DEFAULT_PERCENTILES)
    return (float(black), float(white)) if white > black else (float(kept.min()), float(kept.max()))
