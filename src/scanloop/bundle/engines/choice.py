"""Which engine serves: the one asked for, or the fastest on this machine; none that fails the bundle's gate."""

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanloop.bundle.engines.engine import ENGINES, Engine, EngineName, Material, Precision
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.engines.openvino_engine import OpenvinoEngine
from scanloop.bundle.engines.torch_engine import TorchEngine
from scanloop.errors import BundleError, ConfigError

logger = logging.getLogger("scanloop.serving")

BATCH, REPEATS = 8, 5

GPU = Path("/dev/nvidia0")
"""Without it torch is the slowest, and to find that out would cost its import and memory."""

Check = Callable[[Engine], None]
"""Raises a BundleError where an engine does not give the reference images their probabilities."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the engine.

    Attributes:
        engine: A name, or "auto" for the fastest that is installed.
        precision: Of the convolutions; never chosen by itself.
        threads: Threads a call; all cores where it is None.
        compiles: Whether torch compiles the network.
    """

    engine: EngineName | str = "onnxruntime"
    precision: Precision = "float32"
    threads: int | None = None
    compiles: bool = False


def new_engine(name: EngineName, material: Material, wanted: Wanted) -> Engine:
    """An engine by name.

    Raises:
        ConfigError: It is not installed, or does not compute in this precision.
    """
    if name == "openvino":
        return OpenvinoEngine(material, wanted.precision)
    if name == "torch":
        return TorchEngine(material, wanted.precision, compiles=wanted.compiles)
    if wanted.precision != "float32":
        raise ConfigError(f"--precision {wanted.precision}: onnxruntime serves float32; take --engine openvino")
    return OnnxEngine(material.onnx, material.preprocess, material.threads)


def choose(material: Material, wanted: Wanted, check: Check) -> Engine:
    """The engine asked for, checked; or of those installed the fastest that passes the check.

    Raises:
        ConfigError: None computes in this precision, or the one asked for is not there.
        BundleError: It does not give the reference images their probabilities.
    """
    if wanted.engine != "auto":
        if wanted.engine not in ENGINES:
            raise ConfigError(f"--engine {wanted.engine}: take one of auto, {', '.join(ENGINES)}")
        engine = new_engine(wanted.engine, material, wanted)
        check(engine)
        return engine
    timed: dict[str, tuple[float, Engine]] = {}
    refused: dict[str, str] = {}
    for name in ENGINES:
        if importlib.util.find_spec(name) is None or (name == "torch" and timed and not GPU.exists()):
            continue
        try:
            engine = new_engine(name, material, wanted)
            check(engine)
        except (ConfigError, BundleError) as error:
            refused[name] = str(error)
            continue
        timed[name] = (seconds_a_batch(engine, material.preprocess.input_px), engine)
    _tell({name: seconds for name, (seconds, _) in timed.items()}, refused)
    if not timed:
        raise ConfigError("no engine can serve: " + "; ".join(refused.values()))
    return min(timed.values(), key=lambda found: found[0])[1]


def seconds_a_batch(engine: Engine, side: int) -> float:
    """Median time of a batch of eight images, after one for warm-up."""
    squares = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    engine.run_squares(squares)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        engine.run_squares(squares)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def _tell(timed: Mapping[str, float], refused: Mapping[str, str]) -> None:
    for name, seconds in timed.items():
        logger.info("%s: %.1f ms for a batch of %d", name, seconds * 1e3, BATCH)
    for name, reason in refused.items():
        logger.warning("%s cannot serve: %s", name, reason)
