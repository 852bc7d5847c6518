"""The embedding engine: slices in, float16 vectors out, decoded ahead and computed on every core or on a GPU."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch

from scanloop.cores import usable_cores
from scanloop.embedding.blocks import in_order
from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ConfigError
from scanloop.types import Half, Image

Precision = Literal["float32", "bf16", "fp16", "int8"]
Device = Literal["auto", "cpu", "cuda"]

Source = TypeVar("Source")
Name = TypeVar("Name")

DECODED_TOGETHER = 32
"""Slices that a thread decodes before it takes other work."""

UNDER_WAY = 2
"""Batches that a GPU computes or waits for while the next one is prepared."""


class Backend(Protocol):
    """What computes vectors.

    Attributes:
        concurrent: Whether `start` may be called from several threads at once; else it is called from one alone.
    """

    concurrent: bool

    def prepare(self, images: Sequence[Image]) -> Any:
        """Input of slices that are all grey or all in colour; called from several threads."""

    def start(self, batch: Any) -> Callable[[], Half]:
        """Begin to compute a prepared batch; what comes back waits for its float16 vectors (n, dimension)."""


@dataclass(frozen=True)
class _Part(Generic[Name]):
    """Some slices of a group: their places in it, and what stands for them at this stage."""

    name: Name
    size: int
    places: list[int]
    content: Any


class Engine:
    """An encoder made ready to embed.

    In float32 on a CPU it runs in torch. In bf16 and int8 it is compiled for the CPU (`scanloop.embedding.compiled`).
    On a GPU torch runs all precisions but int8.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        batch_size: int,
        precision: Precision = "float32",
        sample: Sequence[Image] = (),
        *,
        device: Device = "auto",
        compiles: bool = False,
    ) -> None:
        """Make an engine.

        Args:
            encoder: To embed with; put into evaluation mode.
            preprocess: What its input needs.
            batch_size: Slices a forward pass.
            precision: Of the numbers inside the network; vectors are float16 in any case.
            sample: Slices that int8 is calibrated with; not used otherwise.
            device: Where to compute; "auto" takes the GPU where there is one, but for int8.
            compiles: Whether torch compiles what it runs; a minute at the start, for what gains by it.

        Raises:
            ConfigError: The precision needs a sample, a package or a device that is missing.
        """
        self.encoder = encoder.eval()
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.cores = usable_cores()
        self.backend = self._backend(precision, sample, device, compiles)

    def __call__(self, images: Sequence[Image]) -> Half:
        """Embeddings of slices.

        Args:
            images: uint8 slices, (h, w) or (h, w, 3), range 0..255.

        Returns:
            float16 (n, dimension), in the order of the slices.
        """
        ((_, vectors),) = self.over([(None, images)], lambda image: image)
        return vectors

    def over(
        self, groups: Iterable[tuple[Name, Sequence[Source]]], decode: Callable[[Source], Image]
    ) -> Iterator[tuple[Name, Half]]:
        """Embeddings of groups of slices, for example of the shards of an archive, in their order.

        While one batch is computed the next ones are read and decoded, a bounded number of them: memory does not grow
        with the number of groups.

        Args:
            groups: Name of each group and what stands for its slices; asked for one group at a time.
            decode: Makes the slice, uint8 (h, w) or (h, w, 3), of what stands for it; called from several threads.

        Yields:
            Name of a group and its vectors, float16 (n, dimension), in the order of its slices.
        """

        def decoded(part: _Part[Name]) -> _Part[Name]:
            return replace(part, content=[decode(source) for source in part.content])

        def prepared(part: _Part[Name]) -> _Part[Name]:
            if not part.places:
                return part
            batch = self.backend.prepare(part.content)
            return replace(part, content=self.backend.start(batch) if self.backend.concurrent else batch)

        with ThreadPoolExecutor(self.cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            slices = in_order(pool, decoded, _cut(groups))
            started = self._started(in_order(pool, prepared, self._batches(slices)))
            yield from self._gathered(started)

    def _batches(self, parts: Iterable[_Part[Name]]) -> Iterator[_Part[Name]]:
        """Batches of one group each, of slices that are all grey or all in colour."""
        waiting: dict[bool, list[tuple[int, Image]]] = {True: [], False: []}
        seen = 0
        for part in parts:
            seen += len(part.places)
            for place, image in zip(part.places, part.content, strict=True):
                waiting[image.ndim == 2].append((place, image))
            whole = seen == part.size
            for some in waiting.values():
                while len(some) >= self.batch_size or (some and whole):
                    places, images = zip(*some[: self.batch_size], strict=True)
                    yield replace(part, places=list(places), content=list(images))
                    del some[: self.batch_size]
            if whole:
                seen = 0
                if not part.size:
                    yield part

    def _started(self, parts: Iterable[_Part[Name]]) -> Iterator[_Part[Name]]:
        """Batches that are under way, a few ahead of the one that is waited for."""
        ahead: deque[_Part[Name]] = deque()
        for part in parts:
            waits = part.places and not self.backend.concurrent
            ahead.append(replace(part, content=self.backend.start(part.content)) if waits else part)
            if len(ahead) > UNDER_WAY:
                yield ahead.popleft()
        yield from ahead

    def _gathered(self, parts: Iterable[_Part[Name]]) -> Iterator[tuple[Name, Half]]:
        """Whole groups: the vectors of their batches at their places."""
        vectors, left = np.empty((0, 0), np.float16), 0
        for part in parts:
            if not left:
                vectors, left = np.empty((part.size, self.encoder.dimension), np.float16), part.size
            if part.places:
                vectors[part.places] = part.content()
            left -= len(part.places)
            if not left:
                yield part.name, vectors

    def _backend(self, precision: Precision, sample: Sequence[Image], device: Device, compiles: bool) -> Backend:
        on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available() and precision != "int8")
        if on_gpu or precision == "float32":
            from scanloop.embedding.torch_backend import TorchBackend

            where = "cuda" if on_gpu else "cpu"
            return TorchBackend(self.encoder, self.preprocess, precision, where, self.batch_size, compiles)
        if precision == "fp16":
            raise ConfigError("embed.precision fp16 needs a GPU, and there is none; set it to bf16 or int8")
        from scanloop.embedding.compiled import CompiledBackend

        if precision == "int8" and not sample:
            raise ConfigError("embed.precision int8 needs slices to calibrate with; set embed.precision to bf16")
        calibrated_with = self.preprocess(sample) if precision == "int8" else None
        return CompiledBackend(self.encoder, self.preprocess, self.cores, calibrated_with)


def _cut(groups: Iterable[tuple[Name, Sequence[Source]]]) -> Iterator[_Part[Name]]:
    """Groups in pieces that a thread decodes at once; an empty group is one empty piece."""
    for name, sources in groups:
        for first in range(0, len(sources), DECODED_TOGETHER) or (0,):
            some = sources[first : first + DECODED_TOGETHER]
            yield _Part(name, len(sources), list(range(first, first + len(some))), some)
