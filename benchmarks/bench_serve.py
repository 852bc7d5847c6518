"""How fast a bundle is served: our server with each engine against KServe as documented, with JPEGs over V1.

.venv/bin/python benchmarks/bench_serve.py --rounds 5 --seconds 10 --clients 1 8 16 32

ResNet-18 at 224, radiographs below SCANLOOP_DATA or drawn ones. A round measures every server at every number of
clients, one after the other, with all other servers stopped; the generator is wrk, on the same machine. Throughput and
latency are medians over rounds, and so are their ratios to the plain server's in the same round. What the server itself
costs is its processor time a request, less that of decoding a JPEG and of the network at the batch that was served,
both measured in this process in the same round, on as many threads. `--lock FILE` holds a lock while it measures, for
a machine that is shared. TorchServe is measured where it is installed, with our handler and behind our guard.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from resnet_bundle import write_resnet_bundle
from serving_load import Running, Variant, alone, jpegs, load, load_generator, running, write_script

HERE = Path(__file__).parent
ENGINES = {
    "onnxruntime float32": ("onnxruntime", "float32"),
    "openvino float32": ("openvino", "float32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
    "torch float32": ("torch", "float32"),
    "torch bf16": ("torch", "bf16"),
}
TORCHSERVE = {
    "torchserve torch float32": ("torch", "float32"),
    "torchserve openvino bf16": ("openvino", "bf16"),
}
LIBRARIES = ("torch", "onnxruntime", "openvino", "kserve", "uvicorn", "numpy")
IMAGES = 64
IN_PROCESS_SECONDS = 1.0


def variants(bundle: Path, wanted: Sequence[str], options: Sequence[str], scratch: Path) -> list[Variant]:
    """The servers to measure, the plain one first."""
    plain = [sys.executable, str(HERE / "plain_server.py"), "--http_port", "{port}"]
    found = [Variant("plain", plain, "/v1/models/plain:predict", "/v2/models/plain/ready")]
    for name in wanted:
        if name in TORCHSERVE:
            store = exported(bundle, scratch / name.replace(" ", "-"), *TORCHSERVE[name])
            ours = [sys.executable, "-m", "serving.torchserve", "--store", str(store), "--port", "{port}", "--open"]
        else:
            engine, precision = ENGINES[name]
            ours = [sys.executable, "-m", "serving", "--bundle", str(bundle), "--port", "{port}", "--open", *options]
            ours += ["--engine", engine, "--precision", precision]
        found.append(Variant(name, ours, "/v1/models/scanloop:predict", "/v2/health/ready"))
    return found


def exported(bundle: Path, store: Path, engine: Any, precision: Any) -> Path:
    """What TorchServe is started with: a worker on all cores, batches of eight."""
    from scanloop.bundle.torchserve import Settings, export

    export(bundle, Settings(engine=engine, precision=precision, threads=os.cpu_count() or 1, batch=8), store)
    return store


def installed() -> list[str]:
    """What can be measured here by default."""
    from scanloop.errors import ConfigError
    from serving.torchserve.process import check_installed

    names = list(ENGINES)
    try:
        check_installed()
    except ConfigError as error:
        print(f"without TorchServe: {error}", file=sys.stderr)
        return names
    return [*names, *TORCHSERVE]


class InProcess:
    """What decoding and the network cost without a server, in processor time.

    Args:
        bundle: Folder.
        files: JPEGs.
        names: Of engines.
        threads: That work at a time, as the server's do: a processor is slower with all cores at work.
    """

    def __init__(self, bundle: Path, files: Sequence[bytes], names: Sequence[str], threads: int) -> None:
        from scanloop.bundle.engines.choice import Wanted
        from scanloop.bundle.read import read_bundle

        self._files, self._threads = files, threads
        self._read = {name: read_bundle(bundle, Wanted(*ENGINES[name], threads, threads)) for name in names}

    def decode_ms(self, name: str) -> float:
        """Base64's text to the network's square, an image."""
        bundle = self._read[name]
        turns = itertools.cycle(self._files)
        return self._cpu_ms(lambda: bundle.preprocess.square(bundle.decode(next(turns))), 1)

    def model_ms(self, name: str, batch: int) -> float:
        """The network and the decisions' numbers, an image of a batch."""
        bundle = self._read[name]
        side = bundle.preprocess.input_px
        squares = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        return self._cpu_ms(lambda: bundle.engine.run_squares(squares), batch)

    def _cpu_ms(self, work: Callable[[], object], images: int) -> float:
        def repeat(until: float) -> None:
            while time.perf_counter() < until:
                work()
                counts.append(images)

        def together(seconds: float) -> None:
            until = time.perf_counter() + seconds
            workers = [threading.Thread(target=repeat, args=(until,)) for _ in range(self._threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        counts: list[int] = []
        together(IN_PROCESS_SECONDS / 4)
        counts.clear()
        started = time.process_time()
        together(IN_PROCESS_SECONDS)
        return (time.process_time() - started) / sum(counts) * 1e3


def measure(servers: Sequence[Running], arguments: argparse.Namespace, script: Path, inside: InProcess) -> list[Any]:
    """One record a server, a number of clients and a round."""
    records = []
    for turn in range(arguments.rounds):
        for clients, server in itertools.product(arguments.clients, servers):
            with alone(server, servers, arguments.lock):
                load(server, script, clients, arguments.warm_seconds)
                figures = load(server, script, clients, arguments.seconds)
                if server.variant.name in ENGINES:
                    figures |= own_share(inside, server.variant.name, figures)
            figures |= {"server": server.variant.name, "clients": clients, "round": turn}
            records.append(figures | {"memory_mib": server.memory_mib()})
            told = {key: round(value, 2) for key, value in figures.items() if isinstance(value, float)}
            print(turn, clients, server.variant.name, told, flush=True)
    return records


def own_share(inside: InProcess, name: str, figures: dict[str, Any]) -> dict[str, float]:
    """The server's own part of its processor time, 0..1, and what was taken from it."""
    batch = max(1, round(figures["images_per_batch"]))
    decode, model = inside.decode_ms(name), inside.model_ms(name, batch)
    own = figures["server_cpu_ms"] - decode - model
    return {"decode_cpu_ms": decode, "model_cpu_ms": model, "own_share": own / figures["server_cpu_ms"]}


def summary(records: Sequence[Any]) -> dict[str, Any]:
    """By server and clients: medians over rounds, the spread of throughput, and ratios to plain in the same round."""
    plain = {(one["clients"], one["round"]): one for one in records if one["server"] == "plain"}
    groups: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for one in records:
        groups[one["server"], one["clients"]].append(one)
    result: dict[str, Any] = defaultdict(dict)
    for (name, clients), rounds in groups.items():
        numbers = [key for key, value in rounds[0].items() if isinstance(value, float)]
        figures = {key: round(statistics.median(one[key] for one in rounds), 4) for key in numbers}
        speeds = [one["requests_per_second"] for one in rounds]
        figures["requests_per_second_spread"] = [round(min(speeds), 1), round(max(speeds), 1)]
        for key, label in (("requests_per_second", "throughput"), ("p50_ms", "p50"), ("p99_ms", "p99")):
            ratios = [one[key] / plain[clients, one["round"]][key] for one in rounds]
            figures[f"{label}_to_plain"] = round(statistics.median(ratios), 4)
            figures[f"{label}_to_plain_spread"] = [round(min(ratios), 4), round(max(ratios), 4)]
        result[name][str(clients)] = figures
    return result


def machine() -> dict[str, Any]:
    """On what it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    about = dict(line.split(":", 1) for line in lines if ":" in line)
    about = {key.strip(): value.strip() for key, value in about.items()}
    flags = about.get("flags", "").split()
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    extensions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    model = about.get("model name", platform.processor())
    return {"cores": os.cpu_count(), "processor": model, "extensions": extensions, "versions": versions}


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="a window")
    parser.add_argument("--warm-seconds", type=int, default=2, help="before each window")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--engines", nargs="+", help="all by default")
    parser.add_argument("--options", default="", help="of our server, in one text")
    parser.add_argument("--bundle", type=Path, help="a bundle at hand; else one is written")
    parser.add_argument("--lock", type=Path, help="held while a window is measured")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the figures as JSON."""
    arguments = read_arguments()
    load_generator()
    kind, files = jpegs(IMAGES)
    wanted = arguments.engines or installed()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        bundle = arguments.bundle or write_resnet_bundle(folder / "bundle")
        script = write_script(folder / "load.lua", files)
        chosen = variants(bundle, wanted, arguments.options.split(), folder)
        inside = InProcess(bundle, files, [name for name in wanted if name in ENGINES], os.cpu_count() or 1)
        servers = [stack.enter_context(running(one, folder)) for one in chosen]
        records = measure(servers, arguments, script, inside)
    facts = {
        "benchmark": "serve", "network": "ResNet-18 at 224", "images": kind, "n_images": len(files),
        "bytes_an_image": round(statistics.mean(map(len, files))), "rounds": arguments.rounds,
        "seconds": arguments.seconds, "options": arguments.options, "machine": machine(),
    }  # fmt: skip
    print(json.dumps(facts | {"servers": summary(records)}))


if __name__ == "__main__":
    main()
