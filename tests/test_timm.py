"""Encoders of timm: their own features, their own preprocessing, and clear words where timm or a model is missing."""

import sys
from pathlib import Path

import pytest
import torch

from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import Encoder, new_encoder
from scanloop.embedding.vision import torchvision
from scanloop.embedding.weights import load_weights
from scanloop.errors import ConfigError, WeightsError

MODELS = ("resnet10t", "vit_tiny_patch16_224")


def test_without_timm_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="timm:resnet10t needs timm: pip install timm, or take resnet18"):
        new_encoder("timm:resnet10t", seed=0)


def test_the_configuration_takes_names_of_timm_and_no_other_words() -> None:
    assert PretrainConfig(encoder="timm:convnext_tiny.fb_in22k").encoder == "timm:convnext_tiny.fb_in22k"
    for name in ("convnext", "timm:", "timm:a b", "timm:../a", "resnet18 "):
        with pytest.raises(ValueError, match="smallcnn"):
            PretrainConfig(encoder=name)


def images(side: int = 224) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", MODELS)
def test_an_embedding_is_what_timm_gives_without_its_classifier(model: str) -> None:
    torchvision()
    timm = pytest.importorskip("timm")
    encoder = new_encoder(f"timm:{model}", seed=3).eval()
    net = timm.create_model(model, num_classes=0).eval()
    net.load_state_dict(encoder.blocks[0].net.state_dict())
    with torch.inference_mode():
        found = encoder(images())
        assert found.shape == (2, encoder.dimension)
        torch.testing.assert_close(found, net(images()))
        assert torch.equal(Encoder.pool(encoder.run(encoder.run(images(), last=-2), first=-2)), found)
    again = new_encoder(f"timm:{model}", seed=3).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in encoder.state_dict().items())


def test_a_file_of_weights_is_read_by_name_with_the_models_own_colours(tmp_path: Path) -> None:
    torchvision()
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet10t", num_classes=7)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    encoder = new_encoder("timm:resnet10t", seed=1)
    preprocess = load_weights(encoder, str(tmp_path / "weights.pth"), 96)
    assert preprocess.mean == pytest.approx([255 * value for value in net.pretrained_cfg["mean"]])
    assert preprocess.input_px == 96
    for name, tensor in encoder.blocks[0].net.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name])
    torch.save({"conv1": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"the weights of timm:resnet10t lack .*; take those of the same model"):
        load_weights(encoder, str(tmp_path / "other.pth"), 96)


def test_a_model_that_timm_does_not_know_is_refused() -> None:
    torchvision()
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=r"timm:nonsense: timm .* knows no such model"):
        new_encoder("timm:nonsense", seed=0)
