"""Which engine serves: the one asked for, or the fastest on this machine; none that fails the bundle's gate."""

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scanloop.bundle.engines.engine import ENGINES, Engine, EngineName, Material, Precision
from scanloop.bundle.engines.int8_engine import Int8Engine
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.engines.openvino_engine import OpenvinoEngine
from scanloop.bundle.engines.paired import Paired, networks_of
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
        threads: Cores in all; None: those at hand.
        passes: Forward passes at a time, which then share the cores.
        compiles: Whether torch compiles the network.
    """

    engine: EngineName | str = "onnxruntime"
    precision: Precision = "float32"
    threads: int | None = None
    passes: int = 1
    compiles: bool = False


def new_engine(name: EngineName, material: Material, wanted: Wanted) -> Engine:
    """An engine by name; one that runs several passes at a time also has a network for a lone one.

    Raises:
        ConfigError: It is not installed, or does not compute in this precision.
    """
    if wanted.passes == 1 or name == "torch":  # torch has one number of threads for the whole process
        return _single(name, material, wanted)
    cores = material.threads * material.passes
    return Paired(_single(name, replace(material, threads=cores, passes=1), wanted), _single(name, material, wanted))


def _single(name: EngineName, material: Material, wanted: Wanted) -> Engine:
    if name == "openvino":
        return Int8Engine(material) if wanted.precision == "int8" else OpenvinoEngine(material, wanted.precision)
    if name == "torch":
        return TorchEngine(material, wanted.precision, compiles=wanted.compiles)
    if wanted.precision != "float32":
        raise ConfigError(f"--precision {wanted.precision}: onnxruntime serves float32; take --engine openvino")
    return OnnxEngine(material.onnx, material.preprocess, material.threads)


def checked(engine: Engine, check: Check) -> Engine:
    """An engine all of whose networks have passed a check."""
    for network in networks_of(engine):
        check(network)
    return engine


def choose(material: Material, wanted: Wanted, check: Check) -> Engine:
    """The engine asked for, checked; or of those installed the fastest that passes the check.

    Raises:
        ConfigError: None computes in this precision, or the one asked for is not there.
        BundleError: It does not give the reference images their probabilities.
    """
    if wanted.engine != "auto":
        if wanted.engine not in ENGINES:
            raise ConfigError(f"--engine {wanted.engine}: take one of auto, {', '.join(ENGINES)}")
        return checked(new_engine(wanted.engine, material, wanted), check)
    timed: dict[str, tuple[float, Engine]] = {}
    refused: dict[str, str] = {}
    for name in ENGINES:
        if importlib.util.find_spec(name) is None or (name == "torch" and timed and not GPU.exists()):
            continue
        try:
            engine = checked(new_engine(name, material, wanted), check)
        except (ConfigError, BundleError) as error:
            refused[name] = str(error)
            continue
        timed[name] = (seconds_a_batch(engine, material.preprocess.input_px, wanted.passes), engine)
    _tell({name: seconds for name, (seconds, _) in timed.items()}, refused)
    if not timed:
        raise ConfigError("no engine can serve: " + "; ".join(refused.values()))
    return min(timed.values(), key=lambda found: found[0])[1]


def seconds_a_batch(engine: Engine, side: int, passes: int = 1) -> float:
    """Median time of as many batches of eight images as run at once, after some for warm-up."""
    squares = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    taken = []
    with ThreadPoolExecutor(passes) as pool:
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            list(pool.map(engine.run_squares, [squares] * passes))
            taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


def _tell(timed: Mapping[str, float], refused: Mapping[str, str]) -> None:
    for name, seconds in timed.items():
        logger.info("%s: %.1f ms for a batch of %d", name, seconds * 1e3, BATCH)
    for name, reason in refused.items():
        logger.warning("%s cannot serve: %s", name, reason)
