"""An encoder's channels brought closer to one range, so that one scale a tensor wastes fewer of its 8-bit steps.

The output is the same: what a convolution gives is divided by a factor a channel, which ReLU, pooling and concatenation
let through, and the convolutions that read it multiply by it. Cross-layer equalisation of Nagel et al. (2019,
arXiv:1906.04721), section 4.1, with ranges from a sample instead of the weights alone, and half of the way only: the
weights that multiply have one scale an output channel, and lose what the values gain.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from scanloop.embedding.quantisation import convolutions

WAY = 0.5
"""Share of the way to equal ranges, in the logarithm."""

LEAST = 0.05
"""Least factor: channels that hardly ever speak are left at a twentieth."""

Modules = Mapping[str, nn.Module]
Reader = tuple[nn.Conv2d, int]


def equalise(graph: fx.GraphModule, inputs: npt.NDArray[np.float32], batch_size: int = 16) -> None:
    """Equalise a fused graph in place.

    Args:
        graph: Of an encoder, with batch norm folded into the convolutions.
        inputs: Normalised images of a sample, float32 (n, 3, s, s), n at least 1.
        batch_size: Images a forward pass.
    """
    modules = dict(graph.named_modules())
    watch = _Ranges(graph)
    with torch.no_grad():
        for start in range(0, len(inputs), batch_size):
            watch.run(torch.from_numpy(inputs[start : start + batch_size]))
        for node, total in watch.largest.items():
            conv, readers = modules[str(node.target)], _readers(node, modules)
            if isinstance(conv, nn.Conv2d) and readers:
                _divide(conv, readers, (total / total.max().clamp(min=1e-12)).pow(WAY).clamp(min=LEAST))


def _divide(conv: nn.Conv2d, readers: list[Reader], factors: Tensor) -> None:
    conv.weight /= factors[:, None, None, None]
    if conv.bias is not None:
        conv.bias /= factors
    for reader, first in readers:
        reader.weight[:, first : first + len(factors)] *= factors[None, :, None, None]


def _readers(node: fx.Node, modules: Modules, first: int = 0) -> list[Reader]:
    """Convolutions that read a node's channels, and the number of the first; none where anything else reads them."""
    found: list[Reader] = []
    for user in node.users:
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            found.append((module, first))
            continue
        if isinstance(module, nn.ReLU | nn.MaxPool2d):
            behind = _readers(user, modules, first)
        elif user.target is torch.cat:
            parts: Any = user.args[0]
            behind = _readers(user, modules, first + sum(_width(one, modules) for one in parts[: parts.index(node)]))
        else:
            return []
        if not behind:
            return []
        found += behind
    return found


def _width(node: fx.Node, modules: Modules) -> int:
    """Channels of a node behind a convolution."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    source: Any = node.args[0]
    return sum(_width(one, modules) for one in source) if isinstance(source, list | tuple) else _width(source, modules)


class _Ranges(fx.Interpreter):
    """Runs a graph; sums over images the largest value of each channel of each convolution's output, 0 at the least."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.convolutions = convolutions(graph)
        self.largest: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_module" and n.target in self.convolutions:
            self.largest[n] = self.largest.get(n, 0) + value.clamp(min=0).amax(dim=(2, 3)).sum(dim=0)
        return value
