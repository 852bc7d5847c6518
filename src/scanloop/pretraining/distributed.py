"""One training on several GPUs: torchrun starts a process a GPU, the first of which leads and writes.

torchrun --standalone --nproc-per-node 4 --no-python -- scanloop pretrain --config CONFIG --run FOLDER

Batch norm counts over all processes on GPUs, and over each one's own slices on CPUs, where torch has no other.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ParamSpec, TypeVar, get_type_hints

import torch
import torch.distributed as dist
from torch import Tensor

P = ParamSpec("P")
S = TypeVar("S")

TRAIN = b"train"
"""What the leader says when it begins to train; anything else is its summary, and the end."""


class _Gather(torch.autograd.Function):
    """All processes' rows, in the order of the processes; each process gets the gradient of its own rows back.

    Every process computes the same loss of the gathered rows, so the gradient of its own rows is whole without asking
    the others. DistributedDataParallel takes the mean over processes, where the sum is the gradient: hence the factor.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        """Gather."""
        context.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Gradient of the own rows."""
        start = dist.get_rank() * context.count
        return gradients[0][start : start + context.count] * dist.get_world_size()


def workers() -> int:
    """Processes that torchrun started for this training; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def joined() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0; the process 0 leads."""
    return dist.get_rank() if joined() else 0


def size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if joined() else 1


def gather(rows: Tensor) -> Tensor:
    """Rows (n, d) of every process, (size x n, d), in order of the processes; gradients flow back. All must call."""
    gathered: Tensor = _Gather.apply(rows) if joined() else rows  # type: ignore[no-untyped-call]
    return gathered


def share(payload: bytes = b"") -> bytes:
    """Bytes of the leader, on every process; what the others give is ignored. All must call."""
    if not joined():
        return payload
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    length = torch.tensor([len(payload)], device=device)
    dist.broadcast(length, 0)
    content = torch.empty(int(length), dtype=torch.uint8, device=device)
    if rank() == 0 and payload:
        content.copy_(torch.frombuffer(bytearray(payload), dtype=torch.uint8))
    dist.broadcast(content, 0)
    return bytes(content.cpu().numpy().tobytes())


@contextmanager
def company() -> Iterator[None]:
    """Training together with the processes that torchrun started; each on a GPU where there are."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def led_by_the_first(follow: Callable[P, None]) -> Callable[[Callable[P, S]], Callable[P, S]]:
    """Run a step in the first of torchrun's processes alone, while the others train along when it trains.

    Args:
        follow: What the other processes do, with the step's arguments, each time the leader shares `TRAIN`.
    """

    def decorate(function: Callable[P, S]) -> Callable[P, S]:
        summary_type = get_type_hints(function)["return"]

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> S:
            if workers() == 1 or joined():
                return function(*args, **kwargs)
            with company():
                if rank() == 0:
                    summary = function(*args, **kwargs)  # where it fails, torchrun ends the others
                    share(json.dumps(asdict(summary)).encode())  # type: ignore[call-overload]
                    return summary
                while (said := share()) == TRAIN:
                    follow(*args, **kwargs)
                found: S = summary_type(**json.loads(said))
                return found

        return run

    return decorate
