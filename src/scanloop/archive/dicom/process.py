"""The reading process seen from outside: started when needed, ended when it hangs, started again when it crashed."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from scanloop.archive.dicom.facts import Facts
from scanloop.archive.dicom.worker import READY
from scanloop.errors import ArchiveError, ImageError

TIMEOUT_SECONDS = 120.0
BASE_BYTES = 3 << 30
"""Address space for Python, its libraries and a file's header."""
BYTES_A_PIXEL = 64
"""For the decoded frame and the copies that the look-up tables make of it."""


@dataclass(frozen=True)
class Part:
    """Where a file's bytes lie: a part of a file on disk.

    Attributes:
        path: The file.
        offset: Of its first byte there.
        size: In bytes.
        number: Tells apart what lies at the same place one after the other.
    """

    path: Path
    offset: int
    size: int
    number: int = 0


class DicomProcess:
    """Reads headers and frames in a process of its own, so that no file can crash, hang or bloat this one.

    Args:
        min_side_px: Least short side of a frame, in pixels.
        max_pixels: Largest height times width of a frame.
        timeout_seconds: A request that takes longer ends the process.
    """

    def __init__(self, *, min_side_px: int, max_pixels: int, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._limits = {"min_side_px": min_side_px, "max_pixels": max_pixels}
        self._max_bytes = BASE_BYTES + BYTES_A_PIXEL * max_pixels
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._deadly: tuple[Part, ImageError] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def facts(self, part: Part) -> Facts:
        """What the header of an object says.

        Raises:
            ImageError: It is no DICOM object with pixels, or cannot be read.
            ArchiveError: The process does not start.
        """
        answer, _ = self._ask(part, None)
        return Facts(**answer["facts"])

    def frame(self, part: Part, index: int) -> tuple[npt.NDArray[np.float32], int]:
        """Brightness of one frame, float32 (h, w) or (h, w, 3), range 0..255, and the bits a channel of its source.

        Raises:
            ImageError: The frame cannot be decoded.
        """
        answer, body = self._ask(part, index)
        return np.frombuffer(body, np.float32).reshape(answer["shape"]), int(answer["bits"])

    def _ask(self, part: Part, frame: int | None) -> tuple[dict[str, Any], bytes]:
        if self._deadly is not None and self._deadly[0] == part:
            raise self._deadly[1]
        place = {"path": str(part.path), "offset": part.offset, "size": part.size}
        request = json.dumps(place | {"frame": frame, "limits": self._limits}).encode() + b"\n"
        answer, body = self._exchange(part, request)
        if "refused" in answer:
            raise ImageError(*answer["refused"])
        return answer, body

    def _exchange(self, part: Part, request: bytes) -> tuple[dict[str, Any], bytes]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        started = time.monotonic()
        timer = threading.Timer(self._timeout_seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            wanted = 4 * int(np.prod(answer["shape"])) if "shape" in answer else 0
            body = process.stdout.read(wanted)
            if len(body) == wanted:
                return answer, body
        except (OSError, ValueError):  # the pipe broke, or ends within a line
            pass
        finally:
            timer.cancel()
        self.close()
        late = time.monotonic() - started >= self._timeout_seconds
        detail = f"not read within {self._timeout_seconds:g} seconds" if late else "it crashes its decoder"
        self._deadly = (part, ImageError("unreadable", detail))
        raise self._deadly[1]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  # our own module, no shell
                [sys.executable, "-m", "scanloop.archive.dicom.worker", str(self._max_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline() != READY:
                self.close()
                raise ArchiveError("the DICOM reader does not start; install it with pip install 'scanloop[compute]'")
        return self._process

    def close(self) -> None:
        """End the process; it starts again when it is needed."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None
