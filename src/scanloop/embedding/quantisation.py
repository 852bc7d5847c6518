"""What 8-bit integers lose, kept small: where an encoder's values are cut off, and what its rounded weights owe.

Values between convolutions and weights are quantised as Jacob et al. (2018, arXiv:1712.05877) do for inference:
values by one scale a tensor, weights by one scale an output channel, both without an offset.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from scanloop.embedding.encoders import Encoder

Floats = npt.NDArray[np.float32]

ADDITIONS = (operator.add, operator.iadd, torch.add)
"""What a graph may call a residual addition."""

SAMPLED = 8192
"""Values an image and tensor that decide where the tensor is cut off."""

MARGIN = 1.25
"""How far beyond the largest value of a sample the bounds in the second half of a network lie."""


@dataclass(frozen=True)
class Calibration:
    """What a sample of slices says of an encoder's values; keys are nodes of its graph with batch norm folded in.

    Attributes:
        bounds: Least and largest value of each tensor that is quantised; the least is 0 or minus the largest.
        means: Mean of what each convolution in 8 bits reads, one value a channel; the others stay in bfloat16.
    """

    bounds: dict[str, tuple[float, float]]
    means: dict[str, list[float]]


def calibrate(graph: fx.GraphModule, inputs: Floats, batch_size: int = 16) -> Calibration:
    """Bounds of the values between the convolutions over a sample.

    In networks without shortcuts, convolutions that narrow stay in bfloat16, and so does what they read: all that
    follows has to do with their few outputs, and they cost little. In the first half of the rest each tensor's bounds
    have the least squared error of rounding over the sample. In the second half a value that is cut off is one that the
    vector lacks, while rounding costs little: bounds keep a margin there.

    Args:
        graph: Of an encoder in evaluation mode, with batch norm folded into the convolutions.
        inputs: Normalised images, float32 (n, 3, s, s), n at least 1.
        batch_size: Images a forward pass.
    """
    exact = _narrowing(graph)
    groups = _groups(graph, exact)
    watch = _Watch(graph, {node.name for group in groups for node in group})
    with torch.no_grad():
        for start in range(0, len(inputs), batch_size):
            watch.run(torch.from_numpy(inputs[start : start + batch_size]))
    bounds: dict[str, tuple[float, float]] = {}
    for number, group in enumerate(groups):  # what is concatenated shares a scale
        values = torch.cat([torch.cat(watch.values[node.name]) for node in group])
        chosen = best_bounds(values) if number < len(groups) / 2 else wide_bounds(values)
        bounds |= dict.fromkeys((node.name for node in group), chosen)
    means = {name: (total / len(inputs)).tolist() for name, total in watch.sums.items() if name not in exact}
    return Calibration(bounds, means)


def fused(encoder: Encoder) -> fx.GraphModule:
    """A copy of the encoder as a graph, with each batch norm folded into its convolution."""
    graph = fuse(encoder)
    assert isinstance(graph, fx.GraphModule)
    return graph


def convolutions(graph: fx.GraphModule) -> dict[str, nn.Conv2d]:
    """The graph's convolutions by their module's name, which is the target of the node that calls them."""
    return {name: module for name, module in graph.named_modules() if isinstance(module, nn.Conv2d)}


def best_bounds(values: Tensor) -> tuple[float, float]:
    """Bounds between which 8 bits represent these values with the least mean squared error.

    Cutting off a few large values gives all others finer steps; bounds from 30 to 100 % of the largest are tried.
    """
    signed = bool((values < 0).any())
    largest = max(values.abs().max().item(), 1e-12)
    steps, low = (127, -127) if signed else (255, 0)
    errors = []
    shares = np.linspace(0.3, 1, 29)
    for share in shares:
        step = largest * share / steps
        errors.append(torch.mean(((values / step).round().clamp(low, steps) * step - values) ** 2).item())
    bound = float(largest * shares[int(np.argmin(errors))])
    return (-bound if signed else 0.0), bound


def wide_bounds(values: Tensor) -> tuple[float, float]:
    """Bounds that hold these values with a margin: 0 or minus the upper one, and the upper one."""
    bound = max(values.abs().max().item() * MARGIN, 1e-12)
    return (-bound if bool((values < 0).any()) else 0.0), bound


def rounded_to_bytes(weight: Floats) -> tuple[Floats, Floats]:
    """Weights (o, i, h, w) on the grid of signed bytes, and the largest of each output channel (o, 1, 1, 1)."""
    largest = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), np.float32(1e-12))
    step = largest / 127
    return np.rint(weight / step) * step, largest


def owed(weight: Floats, rounded: Floats, means: npt.ArrayLike) -> Floats:
    """What rounded weights give too much, in the mean, of an input with these means: (o,), to be taken off the bias.

    The idea of Nagel et al. (2019, arXiv:1906.04721), section 4.2, with means from a sample instead of batch norm.
    """
    excess = (rounded.astype(np.float64) - weight).sum(axis=(2, 3))
    return np.asarray(excess @ np.asarray(means, dtype=np.float64), dtype=np.float32)


def _narrowing(graph: fx.GraphModule) -> set[str]:
    """Names of the 1 x 1 convolutions that give fewer channels than they read; none where shortcuts lead past them."""
    if any(node.target in ADDITIONS for node in graph.graph.nodes):
        return set()
    narrow = {
        name
        for name, module in convolutions(graph).items()
        if module.kernel_size == (1, 1) and module.out_channels < module.in_channels
    }
    return {node.name for node in graph.graph.nodes if node.target in narrow}


def _groups(graph: fx.GraphModule, exact: set[str]) -> list[list[fx.Node]]:
    """Nodes whose values are quantised, those that share a scale together, in the graph's order.

    They are what convolutions in 8 bits read, and the shortcuts of residual additions. Pooling keeps a scale, so the
    value before it is taken; of a concatenation all parts are. The input is bytes already.
    """
    modules = dict(graph.named_modules())
    found: dict[tuple[str, ...], list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.Conv2d) and node.name not in exact:
            group = _sources(node.args[0], modules)
        elif node.target in ADDITIONS:
            group = _sources(node.args[1], modules)
        else:
            continue
        if group[0].op != "placeholder":
            found.setdefault(tuple(source.name for source in group), group)
    return list(found.values())


def _sources(node: Any, modules: Mapping[str, nn.Module]) -> list[fx.Node]:
    if node.op == "call_module" and isinstance(modules[str(node.target)], nn.MaxPool2d):
        return _sources(node.args[0], modules)
    if node.target is torch.cat:
        return [source for part in node.args[0] for source in _sources(part, modules)]
    return [node]


class _Watch(fx.Interpreter):
    """Runs a graph; keeps some values of each quantised tensor, and sums of what each convolution reads."""

    def __init__(self, graph: fx.GraphModule, names: set[str]) -> None:
        super().__init__(graph)
        self.names = names
        self.convolutions = convolutions(graph)
        self.values: dict[str, list[Tensor]] = {}
        self.sums: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and n.target in self.convolutions:
            read = self.env[n.args[0]]  # type: ignore[index]
            self.sums[n.name] = self.sums.get(n.name, 0) + read.double().mean(dim=(2, 3)).sum(dim=0)
        value = super().run_node(n)
        if n.name in self.names:
            flat = value.flatten(1)
            kept = flat[:, :: max(1, flat.shape[1] // SAMPLED)].flatten().clone()  # later operations may write in place
            self.values.setdefault(n.name, []).append(kept)
        return value
