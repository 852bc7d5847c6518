"""The step `pretrain`: what it trains on, what it leaves, and that a kill changes no byte of it."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from chain import Chain
from pretrained import CONFIG, Killed
from safetensors.torch import load_file

from scanloop.artifacts import read_json
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import Encoder, new_encoder, read_encoder
from scanloop.errors import ArchiveError
from scanloop.pretraining.checkpoint import Progress
from scanloop.pretraining.collapse import Health
from scanloop.pretraining.trainer import Trained
from scanloop.steps.pretrain import pretrain

SSL_FILES = ("ssl_config.json", "ssl_loss_curve.png", "ssl_proj_head.safetensors")


def test_pretrain_draws_its_slices_once_by_seed_and_no_more_than_configured(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import pretrain as module

    drawn: list[torch.Tensor] = []

    def spy(encoder: Encoder, images: torch.Tensor, *rest: Any) -> Trained:
        drawn.append(images)
        return Trained(Progress([0.0], [Health(1.0, 1.0, 0.0)]), False, torch.nn.Sequential(torch.nn.Linear(2, 2)))

    monkeypatch.setattr(module, "train_encoder", spy)
    for number, seed in enumerate((4, 4, 5)):
        config = CONFIG.model_copy(update={"seed": seed, "max_slices": 20})
        summary = pretrain(config, **chain.inputs("catalog"), output=tmp_path / str(number))
        assert summary.slices == len(drawn[-1]) == 20
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_pretrain_sees_the_training_part_alone_and_states_what_it_did(chain: Chain) -> None:
    catalog, facts = read_json(chain["catalog"] / "catalog.json"), read_json(chain["encoder"] / "encoder.json")
    assert facts["slices"] == chain.summary("encoder").slices == catalog["splits"]["train"] < catalog["slices"]
    assert facts["data_digest"] == catalog["data_digest"]
    lines = (chain["encoder"] / "loss.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,spread,effective_rank,mean_cosine"
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", repr(chain.summary("encoder").last_loss)]]


def test_pretrain_killed_between_two_epochs_ends_in_the_same_bytes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tqdm

    config = PretrainConfig(seed=4, input_px=32, epochs=2, batch_size=32)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain(config, **chain.inputs("catalog"), output=whole)

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tqdm.tqdm, "set_postfix", die)  # what the step calls after its first epoch
        with pytest.raises(Killed):
            pretrain(config, **chain.inputs("catalog"), output=killed)
    assert not killed.exists()
    pretrain(config, **chain.inputs("catalog"), output=killed)
    for name in ("encoder.safetensors", "encoder.json", "loss.csv", *SSL_FILES):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_weights_may_be_taken_as_they_are(chain: Chain, tmp_path: Path) -> None:
    source = new_encoder("smallcnn", seed=8)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    config = PretrainConfig(method="none", weights=str(tmp_path / "weights.pth"), input_px=32)
    summary = pretrain(config, **chain.inputs("catalog"), output=tmp_path / "encoder")
    assert (summary.slices, summary.epochs, summary.first_loss) == (0, 0, None)
    states = read_encoder(tmp_path / "encoder")[0].state_dict(), source.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_too_small_an_archive_is_refused(tmp_path: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanloop.steps import pretrain as module

    manifest = module.proven_manifest(chain["catalog"])
    monkeypatch.setattr(module, "proven_manifest", lambda _: manifest[manifest["split"] == "train"].head(7))
    with pytest.raises(ArchiveError, match="7 slices"):
        pretrain(CONFIG, **chain.inputs("catalog"), output=tmp_path / "encoder")


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_training_leaves_its_settings_its_curve_and_its_projection_head(
    chain: Chain, tmp_path: Path, method: str
) -> None:
    config = PretrainConfig(
        seed=4, input_px=32, epochs=2, batch_size=32, method=method, projection=24, modality="xray", ema_decay=0.9
    )
    summary = pretrain(config, **chain.inputs("catalog"), output=tmp_path / "encoder")
    settings = read_json(tmp_path / "encoder" / "ssl_config.json")
    assert (settings["method"], settings["modality"], settings["slices"]) == (method, "xray", summary.slices)
    assert settings["augmentation_ranges"]["flip"] == 0
    shapes = [tuple(t.shape) for t in load_file(tmp_path / "encoder" / "ssl_proj_head.safetensors").values()]
    assert sorted(shapes) == [(24,), (24,), (24, 24), (24, 256)]
    with PIL.Image.open(tmp_path / "encoder" / "ssl_loss_curve.png") as curve:
        assert curve.size == (800, 300)
        assert len(np.unique(np.asarray(curve.convert("L")))) > 20
    assert not list((tmp_path / "encoder").rglob("checkpoint*"))


def test_weights_that_are_taken_as_they_are_leave_no_trace_of_a_training(chain: Chain, tmp_path: Path) -> None:
    torch.save(new_encoder("smallcnn", seed=8).state_dict(), tmp_path / "weights.pth")
    config = PretrainConfig(method="none", weights=str(tmp_path / "weights.pth"), input_px=32)
    pretrain(config, **chain.inputs("catalog"), output=tmp_path / "encoder")
    assert not any((tmp_path / "encoder" / name).exists() for name in SSL_FILES)
    assert (tmp_path / "encoder" / "loss.csv").read_text().count("\n") == 1


def test_an_encoder_that_is_trained_beside_given_weights_is_the_one_that_is_trained_alone(
    chain: Chain, tmp_path: Path
) -> None:
    given = new_encoder("smallcnn", seed=8)
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    own = {"input_px": 16, "epochs": 2, "batch_size": 32}
    pretrain(PretrainConfig(seed=4, **own), **chain.inputs("catalog"), output=tmp_path / "alone")
    values = {"seed": 4, "method": "none", "weights": str(tmp_path / "weights.pth"), "input_px": 32, "beside": own}
    summary = pretrain(PretrainConfig.model_validate(values), **chain.inputs("catalog"), output=tmp_path / "both")
    assert (summary.encoder, summary.method, summary.epochs) == ("smallcnn+smallcnn/2", "simclr", 2)
    for name in ("loss.csv", *SSL_FILES):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    encoder, preprocess = read_encoder(tmp_path / "both")
    assert (preprocess.input_px, encoder.dimension) == (32, 512)
    trained = read_encoder(tmp_path / "alone")[0].state_dict()
    for part, alone in (("first", given.state_dict()), ("second", trained)):
        for name, tensor in alone.items():
            assert torch.equal(encoder.state_dict()[f"blocks.0.{part}.{name}"], tensor)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"method": "simclr"}, "set method to 'none'"), ({"input_px": 40}, "must divide input_px 40")],
)
def test_what_cannot_stand_beside_is_refused_before_anything_runs(changed: dict[str, Any], named: str) -> None:
    values = {"method": "none", "weights": "w.pth", "input_px": 32, "beside": {"input_px": 16}}
    PretrainConfig.model_validate(values)
    with pytest.raises(ValueError, match=named):
        PretrainConfig.model_validate(values | changed)
