"""An object as a seekable file, read in ranges: small ones where a reader skips, ever larger ones where it reads on."""

import io

from scanloop.storage.store import Store, Stored

FIRST_BYTES, MOST_BYTES = 64 << 10, 8 << 20


class RangeFile(io.RawIOBase):
    """Binary file over an object of a store.

    A tar of large members is indexed by reading about its headers alone, one of small members in a few large ranges: a
    range that lies close behind the last one is twice as long, up to 8 MiB; one elsewhere has 64 KiB.
    """

    def __init__(self, store: Store, stored: Stored) -> None:
        super().__init__()
        self._store = store
        self._stored = stored
        self._at = 0
        self._start = 0
        self._held = b""
        self._next_bytes = FIRST_BYTES

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read, from 0."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Up to this many bytes, fewer only at the end."""
        end = self._stored.size if size < 0 else min(self._stored.size, self._at + size)
        pieces = []
        while self._at < end:
            if not self._start <= self._at < self._start + len(self._held):
                self._fetch()
            piece = self._held[self._at - self._start : end - self._start]
            pieces.append(piece)
            self._at += len(piece)
        return b"".join(pieces)

    def _fetch(self) -> None:
        skipped = self._at - self._start - len(self._held)
        reads_on = 0 <= skipped <= len(self._held)
        self._next_bytes = min(MOST_BYTES, 2 * self._next_bytes) if reads_on else FIRST_BYTES
        size = min(self._next_bytes, self._stored.size - self._at)
        self._held = self._store.read_part(self._stored, self._at, size)
        self._start = self._at
