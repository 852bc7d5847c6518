"""Several processes under torchrun train as one process with all of the batch does, and the first one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chain import Chain
from pretrained import slices

from scanloop.artifacts import read_json
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ConfigError
from scanloop.pretraining import distributed
from scanloop.pretraining.trainer import train_encoder

HERE = Path(__file__).parent


def torchrun(*arguments: str, processes: int = 2) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--"]
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src"), str(HERE.parent)])
    found = subprocess.run(
        [*command, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("together")
    torchrun(str(HERE / "together_worker.py"), str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_all_hear_what_the_first_one_says(together: list[dict[str, object]]) -> None:
    assert [one["told"] for one in together] == ["from the first"] * 2


def test_gathered_rows_stand_in_order_and_the_mean_of_the_gradients_is_the_gradient(
    together: list[dict[str, object]],
) -> None:
    rows = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    weights = [[1, 2], [3, 4], [5, 6], [7, 8]]
    gradient = [[2 * w * x for w, x in zip(*pair, strict=True)] for pair in zip(weights, rows, strict=True)]
    for one in together:
        assert one["gathered"] == [rows, gradient]


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_two_processes_lose_what_one_process_with_the_whole_batch_loses(
    together: list[dict[str, object]], tmp_path: Path, method: str
) -> None:
    config = PretrainConfig(
        encoder="squeezenet1_1", method=method, input_px=32, epochs=2, batch_size=16, accumulate=2, seed=2
    )
    encoder = new_encoder("squeezenet1_1", 2)
    alone = train_encoder(encoder, slices(), Preprocess(input_px=32), config, tmp_path / "c").progress.losses
    for one in together:
        assert one[method] == pytest.approx(alone, rel=1e-4)
        weight = float(encoder.blocks[0][0].weight.double().abs().sum())
        assert one[f"{method}_weight"] == pytest.approx(weight, rel=1e-5)
    assert together[0][method] == together[1][method]


@pytest.mark.integration
def test_a_step_under_torchrun_writes_one_artifact_and_finds_it_again(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "catalog").symlink_to(chain["catalog"])
    config = tmp_path / "config.yaml"
    config.write_text(
        "ingest: {source: {kind: synthetic}}\n"
        "pretrain: {seed: 4, input_px: 32, epochs: 2, batch_size: 32, encoder: smallcnn}\n"
    )
    main = tmp_path / "main.py"
    main.write_text("from scanloop.cli import main\nmain()\n")
    for _ in range(2):  # the second time nobody trains, and the others are told so
        torchrun(str(main), "pretrain", "--config", str(config), "--run", str(tmp_path / "run"))
    facts = read_json(tmp_path / "run" / "encoder" / "encoder.json")
    assert facts["method"] == "simclr"
    assert (tmp_path / "run" / "encoder" / "ssl_proj_head.safetensors").is_file()


def test_a_batch_that_the_processes_cannot_share_equally_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 3)
    config = PretrainConfig(input_px=32, batch_size=16)
    with pytest.raises(ConfigError, match="for 3 processes; set it to a multiple of 3"):
        train_encoder(new_encoder("smallcnn", 0), slices(), Preprocess(input_px=32), config, tmp_path / "c")
