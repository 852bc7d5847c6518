"""A part of a file as a stream of its own: a member of a tar is read where it lies."""

import io
import os
from pathlib import Path


class FilePart(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file, readable and seekable; nothing is held in memory."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._offset, self._size, self._position = offset, size, 0
        self.name = "<part of a file>"

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move within the part."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + position)
        return self._position

    def tell(self) -> int:
        """Position within the part."""
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the position on, up to the end of the part."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # the buffer protocol has no type in 3.11
        wanted = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(view[:wanted]) or 0
        self._position += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
