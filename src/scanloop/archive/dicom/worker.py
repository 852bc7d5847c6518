"""A process that reads DICOM for another: `python -m scanloop.archive.dicom.worker MAX_BYTES`.

Decoders are native code that a malformed file can crash, hang or make ask for any amount of memory. Requests come as
JSON lines on the standard input; an answer is a JSON line, followed by the bytes of an array if it names a shape. The
process ends with its input.
"""

import io
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scanloop.archive.dicom.facts import read_facts
from scanloop.archive.dicom.file_part import FilePart
from scanloop.archive.dicom.header import DicomObject, open_object
from scanloop.archive.dicom.pixels import show_frame
from scanloop.errors import ImageError

READY = b"ready\n"
"""First line of a process that has started: one that never does is no file's fault."""


class Reader:
    """Answers requests; keeps the last object open, as its frames are asked for one after the other."""

    def __init__(self) -> None:
        self._place: tuple[str, int, int] | None = None
        self._object: DicomObject | None = None

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Facts of an object, or one frame of it; a refusal where it cannot be read."""
        try:
            opened = self._open(request["path"], request["offset"], request["size"])
            if request["frame"] is None:
                return {"facts": read_facts(opened)}, b""
            shown = show_frame(opened, request["frame"], **request["limits"])
            brightness = np.ascontiguousarray(shown.brightness())
            return {"shape": brightness.shape, "bits": shown.bits}, brightness.tobytes()
        except ImageError as error:
            return {"refused": [error.reason, error.detail]}, b""
        except MemoryError:
            return {"refused": ["too_large", "it does not fit into the reader's memory"]}, b""
        except Exception as error:  # whatever a file provokes is an answer, never the end
            return {"refused": ["unreadable", f"it cannot be read ({type(error).__name__})"]}, b""

    def _open(self, path: str, offset: int, size: int) -> DicomObject:
        if self._object is None or self._place != (path, offset, size):
            self._close()
            self._object = open_object(io.BufferedReader(FilePart(Path(path), offset, size)))
            self._place = (path, offset, size)
        return self._object

    def _close(self) -> None:
        if self._object is not None:
            self._object.stream.close()
        self._object = None


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request until there is none."""
    reader = Reader()
    for line in requests:
        answer, body = reader.answer(json.loads(line))
        answers.write(json.dumps(answer).encode() + b"\n" + body)
        answers.flush()


def main() -> None:
    """Serve the standard input; what native code prints goes nowhere."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no image of a patient's data behind
    logging.disable()
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    answers.write(READY)
    answers.flush()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
