"""Encoders: chains of blocks that give the field's own features."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chain import Chain

from scanloop.embedding.encoders import ENCODERS, Encoder, concatenate, new_encoder, read_encoder, write_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.vision import torchvision
from scanloop.embedding.weights import CAFFE, IMAGENET, PLAIN
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


PIXELS = np.random.default_rng(3).integers(0, 256, (3, 128, 128, 3), np.uint8)


@pytest.mark.parametrize(("own", "other"), [(CAFFE, PLAIN), (PLAIN, CAFFE), (PLAIN, IMAGENET)])
def test_two_encoders_side_by_side_give_each_ones_own_vectors_of_length_one(own: Preprocess, other: Preprocess) -> None:
    first, second = new_encoder("squeezenet1_1", seed=0).eval(), new_encoder("smallcnn", seed=1).eval()
    own, other = replace(own, input_px=128), replace(other, input_px=32)
    whole = concatenate(first, own, second, other).eval()
    small = torch.from_numpy(PIXELS.reshape(3, 32, 4, 32, 4, 3).mean(axis=(2, 4))).float()
    colours = (small.flip(3) if other.bgr else small) - torch.tensor(other.mean)
    images = torch.from_numpy(own(list(PIXELS)))
    with torch.inference_mode():
        found = whole(images)
        expected = first(images), second((colours / torch.tensor(other.std)).permute(0, 3, 1, 2))
    assert found.shape == (3, whole.dimension) == (3, 768)
    for part, vectors in zip(found.split([512, 256], dim=1), expected, strict=True):
        torch.testing.assert_close(part, vectors / vectors.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_two_encoders_side_by_side_are_made_again_from_their_name() -> None:
    first, second = new_encoder("smallcnn", seed=0), new_encoder("smallcnn", seed=1)
    whole = concatenate(first, replace(PLAIN, input_px=64), second, replace(CAFFE, input_px=32)).eval()
    again = new_encoder(whole.name, seed=9).eval()
    again.load_state_dict(whole.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(images()), whole(images()))
