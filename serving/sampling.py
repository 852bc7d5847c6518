"""A share of what is served, for the report on drift: hashes, embeddings and answers, never pixels.

Requests are never held up: what finds no room in the queue is counted and let go.
"""

import hashlib
import hmac
import logging
import os
import queue
import random
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanloop.artifacts import write_bytes
from scanloop.errors import ConfigError
from scanloop.tables import SAMPLES
from serving.asked import Asked, Sent
from serving.deciding import BAD_IMAGE, Found
from serving.loaded import Loaded
from serving.metrics import SAMPLED, SAMPLES_DROPPED
from serving.rejection import RequestError

logger = logging.getLogger("scanloop.serving")


MOST_QUEUED, MOST_QUEUED_BYTES = 512, 64 << 20
LEAST_KEY_BYTES = 32


@dataclass(frozen=True)
class Rotation:
    """When a file of samples is closed, and how many are kept.

    Attributes:
        rows: Rows a file, at most.
        seconds: From its first row to its end, at most.
        files: In the folder; the oldest go. 1000 files of 1000 rows with 512 numbers each are about 1.2 GB.
    """

    rows: int = 1000
    seconds: float = 300.0
    files: int = 1000


@dataclass(frozen=True)
class _Sample:
    sent: Sent
    found: Found
    loaded: Loaded
    time: datetime
    nbytes: int


@dataclass
class Sampler:
    """Draws images among those that are answered, and writes what is known of them in a thread.

    Attributes:
        folder: Receives `samples-TIME-PID-NUMBER.parquet`, each whole or absent, readable for its owner alone.
        share: Of the images, 0..1; each is drawn by itself.
        key: Secret of the hashes; None for plain SHA-256.
        rotation: Of the files.
    """

    folder: Path
    share: float
    key: bytes | None = None
    rotation: Rotation = field(default_factory=Rotation)

    def __post_init__(self) -> None:
        self._queue: queue.Queue[_Sample | None] = queue.Queue(MOST_QUEUED)
        self._queued_bytes, self._lock = 0, threading.Lock()
        self._random, self._number = random.Random(), 0  # noqa: S311 - a sample, no secret
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "it cannot be written")
        except OSError as error:
            raise ConfigError(
                f"--sample-to {self.folder}: {error.strerror}; name a folder that can be written"
            ) from error
        self._thread.start()

    def __call__(self, loaded: Loaded, asked: Asked, found: Sequence[Found]) -> None:
        """Draw among the images of an answered request; on the event loop."""
        for sent, one in zip(asked.images, found, strict=True):
            if self._random.random() < self.share:
                self._put(_Sample(sent, one, loaded, datetime.now(UTC), _nbytes(sent)))

    def close(self) -> None:
        """Write what was drawn; nothing is drawn after it."""
        self.share = 0.0
        self._queue.put(None)
        self._thread.join()

    def _put(self, sample: _Sample) -> None:
        with self._lock:
            if self._queued_bytes + sample.nbytes > MOST_QUEUED_BYTES:
                SAMPLES_DROPPED.inc()
                return
            self._queued_bytes += sample.nbytes
        try:
            self._queue.put_nowait(sample)
        except queue.Full:
            self._release(sample)
            SAMPLES_DROPPED.inc()

    def _release(self, sample: _Sample) -> None:
        with self._lock:
            self._queued_bytes -= sample.nbytes

    def _work(self) -> None:
        rows: list[dict[str, Any]] = []
        due, open_still = float("inf"), True
        while open_still:
            try:
                timeout = None if not rows else max(0.0, due - time.monotonic())
                sample = self._queue.get(timeout=timeout)
                open_still = sample is not None
                if sample is not None:
                    self._release(sample)
                    rows.append(self._row(sample))
                    due = due if len(rows) > 1 else time.monotonic() + self.rotation.seconds
            except queue.Empty:
                pass
            except Exception:  # a sample is not worth a server
                SAMPLES_DROPPED.inc()
                logger.exception("an image was not sampled")
            if rows and (not open_still or len(rows) >= self.rotation.rows or time.monotonic() >= due):
                self._write(rows)
                rows, due = [], float("inf")

    def _row(self, sample: _Sample) -> dict[str, Any]:
        loaded, found = sample.loaded, sample.found
        row: dict[str, Any] = {
            "sha256": self._hash(sample.sent),
            "time": sample.time,
            "model_digest": loaded.bundle.digest,
            "operating_point": loaded.bundle.points.default,
        }
        if found.decisions is None:
            return row | {"abstained": BAD_IMAGE}
        bundle, decisions, at = loaded.bundle, found.decisions, found.row
        probabilities, label = decisions.probabilities[at], int(decisions.labels[at])
        embedding = None if decisions.embeddings is None else decisions.embeddings[at].astype(np.float16)
        return row | {
            "label": bundle.classes[label],
            "confidence": float(probabilities.max()),
            "positive": bundle.classes[int(probabilities.argmax())] == bundle.positive_class,
            "probabilities": probabilities.tolist(),
            "abstained": decisions.reasons[at],
            "strangeness": None if decisions.strangeness is None else float(decisions.strangeness[at]),
            "embedding": embedding,
        }

    def _hash(self, sent: Sent) -> str:
        """Of a file's bytes as they were sent, or of pixels."""
        if isinstance(sent.content, np.ndarray):
            payload = sent.content.tobytes()
        else:
            try:
                payload = sent.file()
            except RequestError:  # no base64
                payload = str(sent.content).encode("utf-8", "surrogatepass")
        if self.key is None:
            return hashlib.sha256(payload).hexdigest()
        return hmac.new(self.key, payload, hashlib.sha256).hexdigest()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Write a file and drop the oldest ones; a disk that is full costs the samples, not the server."""
        name = f"samples-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{self._number:06d}.parquet"
        self._number += 1
        try:
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, SAMPLES), sink, compression="zstd", write_page_checksum=True)
            write_bytes(self.folder / name, sink.getvalue().to_pybytes())
            SAMPLED.inc(len(rows))
            files = sorted(self.folder.glob("samples-*.parquet"))
            for old in files[: max(0, len(files) - self.rotation.files)]:
                old.unlink(missing_ok=True)
        except (OSError, pa.ArrowException):
            SAMPLES_DROPPED.inc(len(rows))
            logger.exception("%d samples could not be written", len(rows))


def sampler_of(folder: Path | None, share: float, key_file: Path | None) -> Sampler | None:
    """A sampler that writes to a folder; None where there is none.

    Args:
        folder: Is made where it is missing.
        share: Of the images, 0..1.
        key_file: Secret of the hashes, kept as that of de-identification; plain SHA-256 without.

    Raises:
        ConfigError: The folder cannot be written, or the key cannot be read, is open to everyone or too short.
    """
    if folder is None:
        if key_file is not None:
            raise ConfigError("--sample-key-file: nothing is sampled; give --sample-to")
        return None
    return Sampler(folder, share, None if key_file is None else _read_key(key_file))


def _read_key(path: Path) -> bytes:
    try:
        key, mode = path.read_bytes().strip(), path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"--sample-key-file {path}: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        raise ConfigError(f"--sample-key-file {path}: every user can read it; chmod 600 {path}")
    if len(key) < LEAST_KEY_BYTES:
        raise ConfigError(
            f"--sample-key-file {path}: {len(key)} bytes; at least {LEAST_KEY_BYTES} random ones are a key"
        )
    return key


def _nbytes(sent: Sent) -> int:
    return sent.content.nbytes if isinstance(sent.content, np.ndarray) else len(sent.content)
