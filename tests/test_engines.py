"""Engines: the same network, run by others, gives the same probabilities or is refused."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundle import CLASSES, draw_slices, new_bundle, new_facts, torch_probabilities
from torch import nn

from scanloop.artifacts import read_json, write_json
from scanloop.bundle.abstention import no_abstention
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.engines.engine import Outputs
from scanloop.bundle.engines.paired import Paired, networks_of
from scanloop.bundle.exemplars import no_exemplars
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError, ConfigError

IMAGES = draw_slices(20, seed=5)


class SmallNetwork(nn.Module):
    """An encoder that every engine knows, with batch norm that is not the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = new_encoder("smallcnn", 3)
        torch.manual_seed(1)
        self.head = nn.Linear(256, len(CLASSES))
        with torch.no_grad():
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.2, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
            self.head.weight.mul_(80)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))


def bundle_of(folder: Path, preprocess: Preprocess) -> Path:
    facts = new_facts(
        encoder="smallcnn", preprocess=preprocess, abstention=no_abstention(), exemplars=no_exemplars(),
        reference=draw_slices(8), gates={"float32": 1e-5, "bf16": 0.05, "int8": 0.2},
    )  # fmt: skip
    return new_bundle(folder, SmallNetwork().eval(), facts)


@pytest.fixture(scope="module", params=[False, True], ids=["rgb", "bgr"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Preprocess]:
    mean, std = (90.0, 110.0, 130.0), (50.0, 60.0, 70.0)  # a channel of its own each, so that their order matters
    preprocess = Preprocess(48, 32, mean, std, bgr=request.param)
    return bundle_of(tmp_path_factory.mktemp("small"), preprocess), preprocess


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_every_engine_gives_in_float32_what_torch_gives_in_float64(
    served: tuple[Path, Preprocess], engine: str, passes: int
) -> None:
    folder, preprocess = served
    bundle = read_bundle(folder, Wanted(engine, threads=2, passes=passes))
    assert (bundle.engine.name, bundle.engine.precision) == (engine, "float32")
    expected = torch_probabilities(SmallNetwork(), IMAGES, preprocess)
    assert np.ptp(expected[:, 0]) > 0.1
    for network in networks_of(bundle.engine):
        squares = np.stack([preprocess.square(image) for image in IMAGES])
        for outputs in (network.run_squares(squares), network.run_inputs(preprocess(list(IMAGES)))):
            np.testing.assert_allclose(bundle.calibrator(outputs.logits), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "engine", "most"), [("bf16", "openvino", 0.05), ("bf16", "torch", 0.05), ("int8", "openvino", 0.2)]
)
def test_coarser_precisions_stay_close_and_are_not_float32_in_disguise(
    served: tuple[Path, Preprocess], precision: str, engine: str, most: float
) -> None:
    folder, _ = served
    try:
        found = read_bundle(folder, Wanted(engine, precision)).predict(IMAGES)  # type: ignore[arg-type]
    except ConfigError as refused:
        pytest.skip(str(refused))
    exact = read_bundle(folder).predict(IMAGES)
    assert 1e-6 < np.abs(found - exact).max() < most


def test_a_lone_image_gets_all_cores_and_batches_at_once_get_one_each(served: tuple[Path, Preprocess]) -> None:
    asked: list[str] = []
    busy, go_on = threading.Event(), threading.Event()

    class Noting:
        name, precision = "onnxruntime", "float32"

        def __init__(self, called: str) -> None:
            self.called = called

        def run_squares(self, squares: np.ndarray) -> Outputs:
            asked.append(self.called)
            if len(squares) == 5:
                busy.set()
                go_on.wait(10)
            return Outputs(np.zeros((len(squares), 2), np.float32), None)

        run_inputs = run_squares

    engine = Paired(Noting("alone"), Noting("together"))  # type: ignore[arg-type]
    one = np.zeros((1, 4, 4, 3), np.uint8)
    engine.run_squares(one)
    worker = threading.Thread(target=engine.run_squares, args=(np.zeros((5, 4, 4, 3), np.uint8),))
    worker.start()
    busy.wait(10)
    engine.run_squares(one)
    go_on.set()
    worker.join()
    engine.run_inputs(one)  # type: ignore[arg-type]
    assert asked == ["alone", "together", "together", "alone"]


def test_the_fastest_engine_that_is_there_serves_and_the_precision_is_that_asked_for(
    served: tuple[Path, Preprocess],
) -> None:
    bundle = read_bundle(served[0], Wanted("auto", threads=1))
    assert bundle.engine.name in {"onnxruntime", "openvino"}
    assert bundle.engine.precision == "float32"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted("tensorrt"), "take one of auto, onnxruntime"),
        (Wanted("onnxruntime", "bf16"), "onnxruntime serves float32"),
        (Wanted("torch", "int8"), "torch serves float32 and bf16"),
    ],
)
def test_an_engine_that_cannot_is_refused_with_one_that_can(
    served: tuple[Path, Preprocess], wanted: Wanted, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        read_bundle(served[0], wanted)


def test_an_engine_beyond_the_bundles_gate_does_not_serve(tmp_path: Path) -> None:
    folder = bundle_of(tmp_path, Preprocess(48, 32))
    seal = read_json(folder / "bundle.json")
    write_json(folder / "bundle.json", seal | {"gates": {"float32": 1e-5, "bf16": 1e-9, "int8": 1e-9}})
    with pytest.raises((BundleError, ConfigError), match=r"the bundle allows 1e-09|no bfloat16"):
        read_bundle(folder, Wanted("openvino", "bf16"))


def test_a_bundle_of_an_encoder_that_torch_does_not_know_names_an_engine_that_does(tmp_path: Path) -> None:
    folder = new_bundle(tmp_path)
    with pytest.raises(ConfigError, match="knows no encoder tiny; take onnxruntime"):
        read_bundle(folder, Wanted("torch"))
    assert isinstance(read_bundle(folder, Wanted("openvino")), Bundle)
