"""From raw images to slices: one slice for the same bytes, one row of quarantine for what cannot come in."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple, TypeAlias

import numpy as np
import PIL.Image

from scanloop.archive.ahead import fetch_ahead
from scanloop.archive.burned_in import text_attributes
from scanloop.archive.decode import (
    Decoded,
    check_size,
    decode_with_facts,
    encode_png,
    grey_if_equal,
    shrink,
    shrink_brightness,
)
from scanloop.archive.duplicates import ThumbnailFile, is_blank, perceptual_hashes, thumbnail
from scanloop.archive.journal import Fresh, Journal
from scanloop.archive.readers.record import Frame, Later, Payload, RawImage
from scanloop.archive.shards import ShardWriter
from scanloop.config import IngestConfig
from scanloop.cores import usable_cores
from scanloop.errors import ImageError
from scanloop.types import Image, Single

Loaded: TypeAlias = bytes | Image | tuple[Single, int]
"""A file's bytes, a slice, or the brightness, 0..255, of a frame and its bits."""

_AHEAD = 4
"""Images a thread that are under way at a time."""


class Prepared(NamedTuple):
    """A slice as it will be stored.

    Attributes:
        height: Of the source, in pixels.
        width: Of the source, in pixels.
        bits: Bits a channel in the source.
        png: Lossless bytes of the shrunk slice.
        thumbnail: uint8 (32, 32), range 0..255.
        attributes: What was seen in its pixels.
    """

    height: int
    width: int
    bits: int
    png: bytes
    thumbnail: Image
    attributes: dict[str, str]


class _Candidate(NamedTuple):
    """An image on its way in; the slice that it becomes is on its way, too, unless the same bytes came before."""

    raw: RawImage
    slice_id: str
    sha256: str
    prepared: Future[Prepared] | None


class Intake:
    """Takes raw images in, decodes each distinct source once, on every core, and writes it into a shard.

    After a kill it continues at the shard that was not yet written; what was taken in before is not read again.

    Args:
        config: Sizes and limits.
        journal: What was taken in so far.
        shards: Where slices go.
        thumbnails: Those of the journal's own rows.
    """

    def __init__(self, config: IngestConfig, journal: Journal, shards: ShardWriter, thumbnails: ThumbnailFile) -> None:
        self._config = config
        self._journal = journal
        self._shards = shards
        self._unhashed: list[Image] = []
        self._thumbnails = thumbnails
        self._file: tuple[str, int] | None = None

    def take(self, images: Iterable[RawImage]) -> Iterator[RawImage]:
        """Take each image in, count it as a copy, or put it into quarantine; nothing that it holds can stop the run.

        Yields:
            Every image, when it is in.
        """
        with closing(fetch_ahead(self._unknown(images))) as fetched:
            for candidate in self._decoded_ahead(fetched):
                self._take(candidate, self._begin_file(candidate.raw))
                yield candidate.raw
        self._end_file()
        self._commit()

    def _unknown(self, images: Iterable[RawImage]) -> Iterator[RawImage]:
        return (raw for raw in images if not self._journal.recall(raw.file or raw.uri, raw.seen()))

    def _decoded_ahead(self, images: Iterable[RawImage]) -> Iterator[_Candidate]:
        """Images in their order, each decoded by then."""
        under_way: deque[_Candidate] = deque()
        coming: set[str] = set()
        cores = usable_cores()
        with ThreadPoolExecutor(cores, thread_name_prefix="decode") as pool:
            for raw in images:
                slice_id, sha256 = slice_digest(raw.payload, raw.frame)
                prepared = None
                if raw.fault is None and slice_id not in coming and not self._is_known(slice_id):
                    prepared = self._prepare(pool, raw.payload)
                    coming.add(slice_id)
                under_way.append(_Candidate(raw, slice_id, sha256, prepared))
                if len(under_way) > _AHEAD * cores:
                    yield under_way[0]
                    coming.discard(under_way.popleft().slice_id)
            yield from under_way

    def _prepare(self, pool: ThreadPoolExecutor, payload: Payload) -> Future[Prepared]:
        """A frame is loaded here and now, as its reader may be gone later; everything else is the pool's."""
        assert not isinstance(payload, Later)
        try:
            loaded = payload.load() if isinstance(payload, Frame) else payload
        except ImageError as error:
            failed: Future[Prepared] = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(prepare, self._config, loaded)

    def _is_known(self, slice_id: str) -> bool:
        return self._journal.row_of(slice_id) is not None or self._journal.refusal_of(slice_id) is not None

    def _take(self, candidate: _Candidate, file: int) -> None:
        raw, slice_id = candidate.raw, candidate.slice_id
        nbytes = len(raw.payload) if isinstance(raw.payload, bytes) else raw.payload.nbytes
        row = None
        try:
            if raw.fault is not None:
                raise raw.fault
            if (row := self._journal.row_of(slice_id)) is None:
                row = self._add_slice(candidate, self._made(candidate))
            self._journal.add_image(raw, file, nbytes, row)
        except ImageError as error:
            of_bytes = slice_id if raw.fault is None else None
            self._journal.refuse(raw.uri, file, nbytes, (error.reason, error.detail), of_bytes)

    def _made(self, candidate: _Candidate) -> Prepared:
        """The slice that an image becomes; the same bytes are refused for the same reason everywhere."""
        if refusal := self._journal.refusal_of(candidate.slice_id):
            raise ImageError(*refusal)
        assert candidate.prepared is not None
        return candidate.prepared.result()

    def _add_slice(self, candidate: _Candidate, prepared: Prepared) -> int:
        if self._shards.is_full:
            self._commit()
        location = self._shards.add(candidate.slice_id, prepared.png)
        self._unhashed.append(prepared.thumbnail)
        size = prepared.height, prepared.width, prepared.bits
        return self._journal.add_slice(
            Fresh(candidate.slice_id, candidate.sha256, candidate.raw.frame, *size, location, prepared.attributes)
        )

    def _begin_file(self, raw: RawImage) -> int:
        """Number of the image's file; an image of another file says that the one before is complete."""
        name = raw.file or raw.uri
        if self._file is None or self._file[0] != name:
            self._end_file()
            self._file = name, self._journal.begin_file(name, raw.seen())
        return self._file[1]

    def _end_file(self) -> None:
        if self._file is not None:
            self._journal.end_file(self._file[1])
        self._file = None

    def _commit(self) -> None:
        """Write the shard, then what the journal says of it: a kill in between costs this shard alone."""
        if name := self._shards.close():
            self._journal.change("INSERT INTO shards VALUES (?, ?)", (name, self._shards.digests[name]))
        if self._unhashed:
            thumbnails = np.stack(self._unhashed)
            hashes = perceptual_hashes(thumbnails).view(np.int64).tolist()
            first, blank = self._journal.rows - len(hashes), is_blank(thumbnails)
            rows = [(None if blank[row] else value, first + row) for row, value in enumerate(hashes)]
            self._journal.change_each("UPDATE slices SET phash = ? WHERE row = ?", rows)
            self._thumbnails.append(thumbnails)
            self._unhashed = []
        self._journal.commit()


def prepare(config: IngestConfig, payload: Loaded) -> Prepared:
    """The slice that a payload becomes.

    Raises:
        ImageError: It cannot come in.
    """
    limits = {"min_side_px": config.min_side_px, "max_pixels": config.max_pixels}
    if isinstance(payload, tuple):
        brightness, bits = payload
        check_size(*brightness.shape[:2], **limits)
        height, width = brightness.shape[:2]
        stored = shrink_brightness(brightness, config.short_side_px)
    else:
        if isinstance(payload, bytes):
            decoded = decode_with_facts(payload, **limits, short_side_px=config.short_side_px)
        else:
            check_size(*payload.shape[:2], **limits)
            decoded = Decoded(grey_if_equal(payload), 8, *payload.shape[:2])
        height, width, bits = decoded.height, decoded.width, decoded.bits
        stored = np.asarray(shrink(PIL.Image.fromarray(decoded.image), config.short_side_px))
    attributes = text_attributes(stored, config.source)
    return Prepared(height, width, bits, encode_png(stored), thumbnail(stored), attributes)


def slice_digest(payload: Payload, frame: int) -> tuple[str, str]:
    """A slice's id, and the SHA-256 of its source: of a file's bytes, or of an array's shape, type and values."""
    assert not isinstance(payload, Later)
    if isinstance(payload, Frame):
        sha256 = payload.sha256
    elif isinstance(payload, np.ndarray):
        head = f"{payload.shape}:{payload.dtype.str}:".encode()
        sha256 = hashlib.sha256(head + np.ascontiguousarray(payload).tobytes()).hexdigest()
    else:
        sha256 = hashlib.sha256(payload).hexdigest()
    return hashlib.sha256(f"{sha256}:{frame}".encode()).hexdigest(), sha256
