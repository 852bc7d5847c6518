"""SimCLR: the loss of the paper, views a radiologist would call the same, and training that survives being killed."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chain import Chain

from scanloop.archive.readers.phantom import Heads, draw_slices
from scanloop.artifacts import read_json
from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import Encoder, new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.weights import load_weights
from scanloop.errors import ArchiveError
from scanloop.pretraining.augment import Augmentation, augment
from scanloop.pretraining.simclr import nt_xent, train_simclr
from scanloop.steps.pretrain import pretrain

CONFIG = PretrainConfig(seed=5, input_px=32, epochs=3, batch_size=16)
STILL = Augmentation(scale=(1.0, 1.0), rotation_degrees=0, flip=0, brightness=0, contrast=0, noise=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    """The formula of the paper, pair by pair."""
    views = [view / np.sqrt((view**2).sum()) for view in [*first, *second]]
    n, total = len(first), 0.0
    for i in range(2 * n):
        twin = (i + n) % (2 * n)
        others = sum(math.exp(float(views[i] @ views[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(views[i] @ views[twin]) / temperature) / others)
    return total / (2 * n)


@pytest.mark.parametrize(("count", "temperature"), [(1, 0.5), (2, 0.2), (7, 0.1), (16, 1.0)])
def test_the_loss_equals_the_papers_formula_pair_by_pair(count: int, temperature: float) -> None:
    draw = np.random.default_rng(count)
    first, second = draw.normal(size=(2, count, 5)) * 3
    loss = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(first, second, temperature), rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_equal_projections_lose_the_log_of_the_number_of_others(count: int) -> None:
    same = torch.ones(count, 4, dtype=torch.float64)
    assert nt_xent(same, same, 0.2).item() == pytest.approx(math.log(2 * count - 1), abs=1e-12)


def test_the_loss_does_not_depend_on_length_on_order_nor_on_which_view_is_first() -> None:
    first, second = torch.randn(2, 9, 6, dtype=torch.float64, generator=generator()).unbind()
    loss, order = nt_xent(first, second, 0.3), torch.randperm(9, generator=generator())
    torch.testing.assert_close(nt_xent(first * 5, second * 0.1, 0.3), loss)
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.3), loss)
    torch.testing.assert_close(nt_xent(second, first, 0.3), loss)


def test_twins_that_agree_lose_less_than_twins_that_do_not() -> None:
    first = torch.eye(6, dtype=torch.float64)
    assert nt_xent(first, first, 0.2) < 0.1 < nt_xent(first, first.roll(1, 0), 0.2)


def photographs(count: int = 12, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(9))


def test_views_stay_in_range_keep_their_shape_and_leave_the_original_alone() -> None:
    images = photographs()
    before = images.clone()
    views = augment(images, Augmentation(brightness=0.9, contrast=0.9, noise=0.5), generator())
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert 0 <= views.min() < views.max() <= 1
    assert torch.equal(images, before)


def test_a_seed_decides_the_views() -> None:
    images = photographs()
    first, again = (augment(images, Augmentation(), generator(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(images, Augmentation(), generator(2)))
    both = generator(1)
    assert not torch.equal(augment(images, Augmentation(), both), augment(images, Augmentation(), both))


def test_with_every_range_closed_a_view_is_its_original() -> None:
    images = photographs()
    torch.testing.assert_close(augment(images, STILL, generator()), images, rtol=0, atol=1e-5)


def test_a_flip_is_left_to_right() -> None:
    images = photographs()
    flipped = augment(images, Augmentation(**(vars(STILL) | {"flip": 1.0})), generator())
    torch.testing.assert_close(flipped, images.flip(-1), rtol=0, atol=1e-5)


def test_no_view_is_ever_upside_down() -> None:
    ramp = torch.linspace(0, 1, 32)[:, None].expand(3, 32, 32).repeat(400, 1, 1, 1)  # dark above, bright below
    views = augment(ramp, Augmentation(), generator(3))
    assert (views[:, :, -8:].mean(dim=(1, 2, 3)) > views[:, :, :8].mean(dim=(1, 2, 3)) + 0.1).all()


def test_half_of_the_views_are_mirrored() -> None:
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32).repeat(400, 1, 1, 1)  # dark on the left, bright on the right
    views = augment(ramp, Augmentation(), generator(3))
    brighter_right = (views[..., -8:].mean(dim=(1, 2, 3)) > views[..., :8].mean(dim=(1, 2, 3))).float().mean()
    assert 0.4 < brighter_right < 0.6


@functools.cache
def slices(count: int = 48) -> torch.Tensor:
    """Synthetic MRI-like slices, uint8 (n, 3, 32, 32)."""
    patients = np.arange(count) // 2
    heads = Heads(patients, patients % 2 == 0, contrast=0.35)
    images = np.stack(list(draw_slices(heads, 32, np.random.default_rng(0))))
    return torch.from_numpy(np.repeat(images[:, None], 3, axis=1).copy())


class Killed(Exception):
    """The process dies here."""


def train(folder: Path, die_after: int | None = None, config: PretrainConfig = CONFIG) -> tuple[Encoder, list[float]]:
    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == die_after:
            raise Killed

    encoder = new_encoder("smallcnn", config.seed)
    preprocess = load_weights(encoder, None, 32)
    return encoder, train_encoder(encoder, slices(), preprocess, config, folder / "checkpoint.safetensors", on_epoch)


def assert_same_training(first: tuple[Encoder, list[float]], second: tuple[Encoder, list[float]]) -> None:
    assert first[1] == second[1]
    states = first[0].state_dict(), second[0].state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_killed_after_any_epoch_ends_in_the_same_bits_as_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = train(tmp_path / "whole")
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(tmp_path / "killed", die_after=epoch)
    assert_same_training(train(tmp_path / "killed"), whole)
    assert_same_training(train(tmp_path / "killed"), whole)  # killed after its last epoch, nothing is trained again


def test_the_seed_decides_the_training(tmp_path: Path) -> None:
    other = CONFIG.model_copy(update={"seed": 6, "epochs": 1})
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    same = CONFIG.model_copy(update={"epochs": 1})
    assert_same_training(train(tmp_path / "a", config=same), train(tmp_path / "b", config=same))
    assert train(tmp_path / "c", config=other)[1] != train(tmp_path / "a", config=same)[1]


def test_the_loss_falls_below_that_of_a_network_that_tells_nothing_apart(tmp_path: Path) -> None:
    losses = train(tmp_path, config=CONFIG.model_copy(update={"epochs": 10}))[1]
    assert len(losses) == 10
    first, last = np.mean(losses[:3]), np.mean(losses[-3:])
    assert last < first - 0.05
    assert last < math.log(2 * CONFIG.batch_size - 1) - 0.05


def test_training_moves_every_block_and_ends_in_evaluation_mode(tmp_path: Path) -> None:
    encoder = train(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))[0]
    assert not encoder.training
    for block, fresh in zip(encoder.blocks, new_encoder("smallcnn", CONFIG.seed).blocks, strict=True):
        assert not torch.equal(block[0].weight, fresh[0].weight)
        assert not torch.equal(block[1].running_mean, fresh[1].running_mean)


def test_the_last_batch_may_be_short_and_fewer_slices_than_a_batch_are_one(tmp_path: Path) -> None:
    encoder = new_encoder("smallcnn", 0)
    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 48})
    for count in (10, 50):
        folder = tmp_path / str(count)
        folder.mkdir()
        losses = train_simclr(encoder, slices(count), Preprocess(input_px=32), config, folder / "c", lambda *_: None)
        assert math.isfinite(losses[0])


def test_every_slice_that_is_given_is_trained_on_whatever_the_most_that_a_draw_may_take(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    few, many = (CONFIG.model_copy(update={"epochs": 1, "max_slices": most}) for most in (8, 100_000))
    assert_same_training(train(tmp_path / "a", config=few), train(tmp_path / "b", config=many))


def test_pretrain_draws_its_slices_once_by_seed_and_no_more_than_configured(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanloop.steps import pretrain as module

    drawn: list[torch.Tensor] = []

    def spy(encoder: Encoder, images: torch.Tensor, *rest: Any) -> list[float]:
        drawn.append(images)
        return [0.0]

    monkeypatch.setattr(module, "train_simclr", spy)
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
    assert lines == ["epoch,loss", f"1,{chain.summary('encoder').last_loss!r}"]


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
    for name in ("encoder.safetensors", "encoder.json", "loss.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_weights_may_be_taken_as_they_are(chain: Chain, tmp_path: Path) -> None:
    source = new_encoder("smallcnn", seed=8)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    config = PretrainConfig(method="none", weights=str(tmp_path / "weights.pth"), input_px=32)
    summary = pretrain(config, **chain.inputs("catalog"), output=tmp_path / "encoder")
    assert (summary.slices, summary.epochs, summary.first_loss) == (0, 0, None)
    from scanloop.embedding.encoders import read_encoder

    states = read_encoder(tmp_path / "encoder")[0].state_dict(), source.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_too_small_an_archive_is_refused(tmp_path: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanloop.steps import pretrain as module

    manifest = module.proven_manifest(chain["catalog"])
    monkeypatch.setattr(module, "proven_manifest", lambda _: manifest[manifest["split"] == "train"].head(7))
    with pytest.raises(ArchiveError, match="7 slices"):
        pretrain(CONFIG, **chain.inputs("catalog"), output=tmp_path / "encoder")
