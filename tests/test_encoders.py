"""Encoders: chains of blocks that give the field's own features."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from chain import Chain

from scanloop.embedding.encoders import ENCODERS, Encoder, new_encoder, read_encoder, write_encoder
from scanloop.embedding.vision import torchvision
from scanloop.errors import ArtifactError


def images(n: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_embedding_is_the_mean_over_the_last_blocks_map(name: str) -> None:
    encoder = new_encoder(name, seed=0).eval()
    with torch.inference_mode():
        maps = images()
        for block in encoder.blocks:
            maps = block(maps)
        expected = maps.flatten(2).sum(dim=2) / (maps.shape[2] * maps.shape[3])
        embeddings = encoder(images())
    assert embeddings.shape == (2, encoder.dimension)
    torch.testing.assert_close(embeddings, expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_first_blocks_and_the_last_two_make_the_whole(name: str) -> None:
    encoder = new_encoder(name, seed=0).eval()
    with torch.inference_mode():
        assert torch.equal(Encoder.pool(encoder.run(encoder.run(images(), last=-2), first=-2)), encoder(images()))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first, again, other = (new_encoder(name, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_resnet18_gives_torchvisions_own_features() -> None:
    encoder = new_encoder("resnet18", seed=4).eval()
    net = torchvision().models.resnet18(weights=None).eval()
    theirs = [key for key in net.state_dict() if not key.startswith("fc.")]
    net.load_state_dict(dict(zip(theirs, encoder.state_dict().values(), strict=True)), strict=False)
    net.fc = torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images()), net(images()))


def test_squeezenet_gives_torchvisions_own_features() -> None:
    encoder = new_encoder("squeezenet1_1", seed=4).eval()
    features = torchvision().models.squeezenet1_1(weights=None).features.eval()
    features.load_state_dict(dict(zip(features.state_dict(), encoder.state_dict().values(), strict=True)))
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images()), features(images()).mean(dim=(2, 3)))


def test_an_encoder_that_was_written_reads_back_the_same_in_evaluation_mode(chain: Chain, tmp_path: Path) -> None:
    encoder, preprocess = read_encoder(chain["encoder"])
    assert not encoder.training
    assert (preprocess.input_px, encoder.name) == (32, "smallcnn")
    write_encoder(tmp_path, encoder)
    assert (tmp_path / "encoder.safetensors").read_bytes() == (chain["encoder"] / "encoder.safetensors").read_bytes()


@pytest.mark.parametrize("payload", [b"", b"not safetensors at all"])
def test_broken_weights_are_an_artifact_error(chain: Chain, tmp_path: Path, payload: bytes) -> None:
    copy = shutil.copytree(chain["encoder"], tmp_path / "encoder")
    (copy / "encoder.safetensors").write_bytes(payload)
    with pytest.raises(ArtifactError, match="encoder"):
        read_encoder(copy)


def test_weights_of_another_encoder_are_an_artifact_error(chain: Chain, tmp_path: Path) -> None:
    copy = shutil.copytree(chain["encoder"], tmp_path / "encoder")
    facts = json.loads((copy / "encoder.json").read_text())
    (copy / "encoder.json").write_text(json.dumps(facts | {"encoder": "squeezenet1_1"}))
    with pytest.raises(ArtifactError, match="do not fit a squeezenet1_1"):
        read_encoder(copy)
