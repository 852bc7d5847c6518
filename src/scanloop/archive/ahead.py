"""Fetch files ahead of whoever takes them in: an object store answers late, but it answers many at once."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from scanloop.archive.readers.record import Later, RawImage

THREADS = 16
MAX_BYTES_AHEAD = 256 << 20


def fetch_ahead(
    images: Iterable[RawImage], threads: int = THREADS, max_bytes: int = MAX_BYTES_AHEAD
) -> Generator[RawImage]:
    """The same images in the same order, each with its bytes at hand.

    Drop what need not be read before it comes here: everything that does is read.

    Args:
        images: Images of a reader, files of which are listed but not read.
        threads: Files read at the same time, at most.
        max_bytes: Sizes of files read and not yet taken, in bytes, at most; a larger file is read alone.

    Yields:
        Images without `Later` payloads; one that could not be read has a fault.
    """
    waiting: deque[tuple[Future[RawImage] | RawImage, int]] = deque()
    bytes_ahead = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        try:
            for image in images:
                nbytes = image.payload.nbytes if isinstance(image.payload, Later) else 0
                while waiting and (bytes_ahead + nbytes > max_bytes or len(waiting) >= 4 * threads):
                    first, size = waiting.popleft()
                    bytes_ahead -= size
                    yield first.result() if isinstance(first, Future) else first
                waiting.append((pool.submit(image.loaded) if isinstance(image.payload, Later) else image, nbytes))
                bytes_ahead += nbytes
            while waiting:
                first, _ = waiting.popleft()
                yield first.result() if isinstance(first, Future) else first
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
