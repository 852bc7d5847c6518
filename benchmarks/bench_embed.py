"""JPEG files to vectors on one core: the engine in bf16 and int8 against a plain loop, and what the speed costs.

SCANLOOP_DATA=... .venv/bin/python benchmarks/bench_embed.py --images 384 --repeats 5

The plain loop decodes with Pillow, resizes to 256, crops 224 and runs ResNet-18 in torch's float32, one image at a
time. The engine decodes, resizes, and runs the same network. Repetitions are interleaved, so that a busy machine
slows all alike; rates are medians over them. Speed is measured with ResNet-18 and seeded weights; agreement with
float32 on SqueezeNet 1.1 with its ImageNet weights, on every image of the archive. `--skip-agreement` leaves it out.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

SHORT_SIDE_PX = 256
BATCH = 32
CALIBRATION = 128
WEIGHTS = "weights/SqueezeNet_fp16.onnx"
LIMITS = {"min_side_px": 8, "max_pixels": 50_000_000}


def data_dir() -> Path:
    """Folder of the real images."""
    return Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def files(limit: int | None = None) -> list[bytes]:
    """JPEG files of the brain MRI archive in the order of their names, `limit` of them spread over all."""
    with tarfile.open(data_dir() / "brain_mri_oc.tar") as tar:
        members = sorted(
            (one for one in tar if one.isfile() and one.name.lower().endswith(".jpg")), key=lambda m: m.name
        )
        step = max(1, len(members) // limit) if limit else 1
        return [tar.extractfile(one).read() for one in members[::step][:limit]]  # type: ignore[union-attr]


def pinned(core: int) -> None:
    """Keep this process, and what its libraries start, on one core and one thread."""
    os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)


def one_decoded(payload: bytes) -> Any:
    """Slice as ingest takes it in, before it is shrunk to the archive's size."""
    from scanloop.archive.decode import decode

    return decode(payload, **LIMITS, short_side_px=SHORT_SIDE_PX)


def decoded(payloads: list[bytes]) -> list[Any]:
    """Slices of several files."""
    return [one_decoded(payload) for payload in payloads]


def plain_loop(payloads: list[bytes]) -> Callable[[], None]:
    """One image at a time through Pillow and torch, as a first script would do it."""
    import torch

    from scanloop.embedding.encoders import new_encoder

    encoder = new_encoder("resnet18", seed=0).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def run() -> None:
        for payload in payloads:
            picture = PIL.Image.open(io.BytesIO(payload)).convert("RGB")
            picture = picture.resize((256, 256), PIL.Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
            with torch.inference_mode():
                encoder(((pixels - mean) / std)[None])

    return run


def engine(name: str, precision: str, sample: list[Any], weights: str | None = None) -> Any:
    """An engine with seeded or given weights."""
    from scanloop.embedding.encoders import new_encoder
    from scanloop.embedding.engine import Engine
    from scanloop.embedding.preprocess import Preprocess
    from scanloop.embedding.weights import load_weights

    encoder = new_encoder(name, seed=0)
    preprocess = load_weights(encoder, weights, 224) if weights else Preprocess()
    return Engine(encoder, preprocess, BATCH, precision, sample)


def rate(work: Callable[[], object], count: int) -> float:
    """Images a second of one run."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def speed(payloads: list[bytes], repeats: int, core: int) -> dict[str, list[float]]:
    """Rates of every repetition on one core, by what ran."""
    pinned(core)
    sample = decoded(payloads[:: max(1, len(payloads) // CALIBRATION)][:CALIBRATION])
    fast = {precision: engine("resnet18", precision, sample) for precision in ("bf16", "int8")}
    few = payloads[: max(8, len(payloads) // 16)]
    runs: dict[str, tuple[Callable[[], object], int]] = {"naive": (plain_loop(few), len(few))}
    runs |= {name: (_whole(one, payloads), len(payloads)) for name, one in fast.items()}
    runs["decode"] = (lambda: decoded(payloads), len(payloads))
    for work, _ in runs.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (work, count) in runs.items():
            rates[name].append(rate(work, count))
    return rates


def _whole(embed: Any, payloads: list[bytes]) -> Callable[[], object]:
    """From files to vectors; few slices are in memory at a time."""
    return lambda: list(embed.over([("files", payloads)], one_decoded))


def _worker(core: int, payloads: list[bytes], go: Any, results: Any, seconds: float) -> None:
    pinned(core)
    work = _whole(engine("resnet18", "int8", decoded(payloads[:CALIBRATION])), payloads)
    work()
    go.wait()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        done += len(payloads)
    results.put(done / (time.perf_counter() - started))


def together(payloads: list[bytes], cores: list[int], seconds: float) -> float:
    """Images a second of one worker a core, each with files of its own, all at once."""
    context = multiprocessing.get_context("spawn")
    go, results = context.Barrier(len(cores)), context.Queue()
    shares = [payloads[index :: len(cores)] for index in range(len(cores))]
    workers = [
        context.Process(target=_worker, args=(core, share, go, results, seconds))
        for core, share in zip(cores, shares, strict=True)
    ]
    for worker in workers:
        worker.start()
    rates = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def agreement() -> dict[str, float]:
    """Least cosine, and share of equal 10 nearest neighbours, to float32, over the whole archive.

    Against float32 on the same slices, which is what a precision costs; and, "from files", against float32 on files
    decoded by Pillow at their full size, which is what precision and decoding at half the size cost together.
    """
    from scanloop.archive.decode import grey_if_equal
    from scanloop.embedding.fidelity import fidelity

    payloads, weights = files(), str(data_dir() / WEIGHTS)
    slices = decoded(payloads)
    full = [grey_if_equal(np.array(PIL.Image.open(io.BytesIO(payload)).convert("RGB"))) for payload in payloads]
    exact = {
        name: engine("squeezenet1_1", "float32", [], weights)(images)
        for name, images in (("", slices), ("_from_files", full))
    }
    order = np.random.default_rng(0).permutation(len(slices))[:CALIBRATION]
    sample = [slices[row] for row in order]
    found = {"agreement_images": float(len(slices))}
    for precision in ("bf16", "int8"):
        vectors = engine("squeezenet1_1", precision, sample, weights)(slices)
        for name, reference in exact.items():
            seen = fidelity(vectors, reference)
            found[f"cosine_{precision}_min{name}"] = seen.cosine_min
            found[f"knn10_agreement_{precision}{name}"] = seen.neighbours_shared
    found["knn10_agreement_decoding_alone"] = fidelity(*exact.values()).neighbours_shared
    return found


def stages(payloads: list[bytes], core: int, repeats: int) -> dict[str, float]:
    """Milliseconds an image of each stage on one core: the least of several repetitions, as other work adds to it."""
    from scanloop.embedding.preprocess import Preprocess

    pinned(core)
    slices = [one for one in decoded(payloads) if one.ndim == 2]
    fast = {precision: engine("resnet18", precision, slices[:CALIBRATION]).backend for precision in ("bf16", "int8")}
    batches = [slices[start : start + BATCH] for start in range(0, len(slices), BATCH)]
    prepared = [fast["int8"].prepare(batch) for batch in batches]
    preprocess = Preprocess()
    runs: dict[str, Callable[[], object]] = {
        "decode": lambda: decoded(payloads),
        "resize": lambda: [fast["int8"].prepare(batch) for batch in batches],
        "resize_in_pillow": lambda: [preprocess.square(one) for one in slices],
        **{f"forward_{name}": lambda one=one: [one.start(batch)() for batch in prepared] for name, one in fast.items()},
    }
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, work in runs.items():
            count = len(payloads) if name == "decode" else len(slices)
            least[name] = min(least[name], 1000 / rate(work, count))
    return {f"{name}_ms": value for name, value in least.items()}


def _alone(work: Callable[..., Any], arguments: tuple[Any, ...], results: Any) -> None:
    results.put((work(*arguments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def alone(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a process of its own makes, and its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_alone, args=(work, arguments, results))
    process.start()
    found: tuple[Any, float] = results.get(timeout=900)
    process.join()
    return found


def scaling(payloads: list[bytes], cores: list[int], repeats: int, seconds: float) -> list[float]:
    """Rate of a worker a core over the mean of each alone, on the same core and files, of each repetition."""
    found = []
    for _ in range(repeats):
        alone = [together(payloads[n :: len(cores)], [core], seconds) for n, core in enumerate(cores)]
        found.append(together(payloads, cores, seconds) / statistics.mean(alone))
    return found


def main() -> None:
    """Measure speed, scaling and agreement; print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a measurement of scaling")
    parser.add_argument("--skip-agreement", action="store_true")
    arguments = parser.parse_args()
    payloads, cores = files(arguments.images), sorted(os.sched_getaffinity(0))
    rates, peak = alone(speed, payloads, arguments.repeats, cores[-1])
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: [b / a for a, b in zip(rates["naive"], rates[name], strict=True)] for name in ("bf16", "int8")}
    figures = {
        "benchmark": "bench_embed",
        "n": arguments.repeats,
        "images": len(payloads),
        "naive_images_per_second": middle["naive"],
        "bf16_images_per_second": middle["bf16"],
        "int8_images_per_second": middle["int8"],
        "bf16_ratio": statistics.median(ratios["bf16"]),
        "int8_ratio": statistics.median(ratios["int8"]),
        "bf16_ratio_range": [min(ratios["bf16"]), max(ratios["bf16"])],
        "int8_ratio_range": [min(ratios["int8"]), max(ratios["int8"])],
        "decode_share": middle["int8"] / middle["decode"],
        "peak_rss_mb": peak,
    }
    figures |= alone(stages, payloads[:128], cores[-1], arguments.repeats)[0]
    if len(cores) > 1:
        found = scaling(payloads, cores[:2], arguments.repeats, arguments.seconds)
        figures |= {"two_core_scaling": statistics.median(found), "two_core_scaling_range": [min(found), max(found)]}
    if not arguments.skip_agreement:
        figures |= agreement()
    print(json.dumps({name: round(v, 5) if isinstance(v, float) else v for name, v in figures.items()}))


if __name__ == "__main__":
    main()
