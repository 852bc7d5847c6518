"""DICOM objects that come as bytes, read in a process of their own: no object can crash or hang who asks."""

import itertools
import os
import threading
from pathlib import Path

from scanloop.archive.decode import shrink_brightness
from scanloop.archive.dicom.process import DicomProcess, Part
from scanloop.errors import ArchiveError, ImageError
from scanloop.types import Image

TIMEOUT_SECONDS = 20.0
PREAMBLE_BYTES = 128


def is_dicom(payload: bytes) -> bool:
    """Whether bytes are a DICOM object in the file format; objects without its preamble are none here."""
    return payload[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM"


class DicomReader:
    """Frames of DICOM objects as ingest shows them; one at a time.

    Args:
        min_side_px: Least short side of a frame, in pixels.
        max_pixels: Largest height times width of a frame.
        short_side_px: Frames with a longer short side are shrunk to it, as ingest does.
    """

    def __init__(self, min_side_px: int, max_pixels: int, short_side_px: int) -> None:
        self._process = DicomProcess(min_side_px=min_side_px, max_pixels=max_pixels, timeout_seconds=TIMEOUT_SECONDS)
        self._short_side_px = short_side_px
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)

    def read(self, payload: bytes, frame: int | None) -> Image:
        """A frame, uint8 (h, w) or (h, w, 3).

        Args:
            payload: The file's bytes.
            frame: From 0; None where there is one alone.

        Raises:
            ImageError: It cannot be read, or has several frames and none was named.
        """
        descriptor = os.memfd_create("dicom")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(payload)
            part = Part(Path(f"/proc/{os.getpid()}/fd/{descriptor}"), 0, len(payload), next(self._numbers))
            with self._turn:
                count = self._process.facts(part).frames
                if frame is None and count > 1:
                    raise ImageError("unsupported", f"it has {count} frames; name one with 'frame', from 0")
                if frame is not None and frame >= count:
                    raise ImageError("unsupported", f"it has {count} frames, from 0; there is no frame {frame}")
                brightness, _ = self._process.frame(part, frame or 0)
        except ArchiveError as error:
            raise ImageError("unsupported", "DICOM needs pydicom, which is not installed") from error
        finally:
            os.close(descriptor)
        return shrink_brightness(brightness, self._short_side_px)

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._process.close()
