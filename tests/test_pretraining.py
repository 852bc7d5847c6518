"""Training without labels: it survives being killed, stops when it should, and says when it has collapsed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import CONFIG, Killed, assert_same_training, slices, train
from safetensors.torch import load_file

from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ArtifactError, CollapseError, ConfigError
from scanloop.pretraining import trainer
from scanloop.pretraining.augment import Augmentation
from scanloop.pretraining.collapse import health
from scanloop.pretraining.trainer import chance_loss, train_encoder

FULL = {
    "simclr": CONFIG.model_copy(update={"ema_decay": 0.9, "accumulate": 2}),
    "moco": CONFIG.model_copy(update={"method": "moco", "ema_decay": 0.9, "modality": "ultrasound"}),
    "plain": CONFIG,
}


@pytest.mark.parametrize("name", FULL)
def test_a_training_killed_after_any_epoch_ends_in_the_same_bits_as_an_undisturbed_one(
    tmp_path: Path, name: str
) -> None:
    whole = train(tmp_path / "whole", config=FULL[name])
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(tmp_path / "killed", die_after=epoch, config=FULL[name])
    assert_same_training(train(tmp_path / "killed", config=FULL[name]), whole)
    assert_same_training(train(tmp_path / "killed", config=FULL[name]), whole)  # after its last epoch nothing is left
    states = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("killed", "whole"))
    for one, other in zip(*(sorted(state.items()) for state in states), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


def test_a_checkpoint_holds_the_whole_state_and_no_other_training_takes_it(tmp_path: Path) -> None:
    train(tmp_path, config=FULL["moco"])
    names = set(load_file(tmp_path / "checkpoint.safetensors"))
    for needed in ("method.queue", "method.oldest", "method.slow_encoder.blocks.0.0.weight", "optimizer.0.exp_avg_sq"):
        assert needed in names
    assert "average.blocks.0.0.weight" in names
    with pytest.raises(ArtifactError, match="other settings"):
        train(tmp_path, config=FULL["moco"].model_copy(update={"learning_rate": 2e-3}))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ArtifactError, match="damaged"):
        train(tmp_path, config=FULL["moco"])


def test_the_seed_decides_the_training(tmp_path: Path) -> None:
    same = CONFIG.model_copy(update={"epochs": 1})
    other = same.model_copy(update={"seed": 6})
    first = train(tmp_path / "a", config=same)
    assert_same_training(first, train(tmp_path / "b", config=same))
    assert train(tmp_path / "c", config=other)[1].progress != first[1].progress


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_the_loss_falls_below_that_of_a_network_that_tells_nothing_apart(tmp_path: Path, method: str) -> None:
    config = CONFIG.model_copy(update={"epochs": 8, "method": method, "augmentation": "weak", "modality": "xray"})
    encoder, checkpoint = new_encoder("smallcnn", 5), tmp_path / "checkpoint"
    losses = train_encoder(encoder, slices(96), Preprocess(input_px=32), config, checkpoint).progress.losses
    assert len(losses) == 8
    counted = losses[1:]  # MoCo's queue is random at the start: its first negatives are easy
    assert np.mean(counted[-2:]) < np.mean(counted[:2]) - 0.2
    assert losses[-1] < chance_loss(config, 96) - 0.5


def test_training_moves_every_block_and_ends_in_evaluation_mode(tmp_path: Path) -> None:
    encoder = train(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))[0]
    assert not encoder.training
    for block, fresh in zip(encoder.blocks, new_encoder("smallcnn", CONFIG.seed).blocks, strict=True):
        assert not torch.equal(block[0].weight, fresh[0].weight)
        assert not torch.equal(block[1].running_mean, fresh[1].running_mean)


def test_the_last_batch_may_be_short_and_fewer_slices_than_a_batch_are_one(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 48})
    for count in (10, 50):
        checkpoint, encoder = tmp_path / str(count), new_encoder("smallcnn", 0)
        trained = train_encoder(encoder, slices(count), Preprocess(input_px=32), config, checkpoint)
        assert math.isfinite(trained.progress.losses[0])


def test_every_slice_that_is_given_is_trained_on_whatever_the_most_that_a_draw_may_take(tmp_path: Path) -> None:
    few, many = (CONFIG.model_copy(update={"epochs": 1, "max_slices": most}) for most in (8, 100_000))
    assert_same_training(train(tmp_path / "a", config=few), train(tmp_path / "b", config=many))


def test_grey_slices_train_as_their_three_equal_channels_do_but_for_the_grain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = {key: type(value)(**(vars(value) | {"noise": 0.0})) for key, value in trainer.PRESETS.items()}
    monkeypatch.setattr(trainer, "PRESETS", still)
    config, losses = CONFIG.model_copy(update={"epochs": 1}), []
    for channels in (1, 3):
        images = slices().expand(-1, channels, -1, -1).contiguous()
        encoder = new_encoder("smallcnn", 5)
        trained = train_encoder(encoder, images, Preprocess(input_px=32), config, tmp_path / str(channels))
        losses.append(trained.progress.losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_gradient_of_an_update_is_the_mean_of_those_of_its_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = Augmentation(scale=(1, 1), rotation_degrees=0, flip=0, brightness=0, contrast=0, noise=0)
    monkeypatch.setattr(trainer, "PRESETS", dict.fromkeys(trainer.PRESETS, still))
    config = PretrainConfig(encoder="squeezenet1_1", input_px=32, epochs=1, batch_size=16, accumulate=2, clip_norm=1e9)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: seen.append(gradient(self.param_groups[0]["params"])))
    preprocess = Preprocess(input_px=32, mean=(0, 0, 0), std=(255, 255, 255))
    train_encoder(new_encoder("squeezenet1_1", 0), slices(16), preprocess, config, tmp_path / "c")

    method = trainer._new_method(new_encoder("squeezenet1_1", 0), 16, 16, config)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for rows in order.split(8):
        images = (slices(16)[rows].float() / 255).expand(-1, 3, -1, -1)
        (method.loss(*method(images, images), rows) / 2).backward()
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], gradient(list(method.parameters())), rtol=1e-3, atol=1e-5)


def gradient(weights: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in weights])  # type: ignore[union-attr]


def test_bfloat16_trains_close_to_float32_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    encoder, trained = train(tmp_path / "bf16", config=CONFIG.model_copy(update={"precision": "bf16"}))
    assert encoder.blocks[0][0].weight.dtype == torch.float32
    assert trained.progress.losses == pytest.approx(plain[1].progress.losses, abs=0.1)
    assert trained.progress.losses != plain[1].progress.losses


def test_no_gradient_is_longer_than_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    plain = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, closure: None = None) -> None:
        weights = self.param_groups[0]["params"]
        steps.append(float(torch.cat([weight.grad.flatten() for weight in weights]).norm()))
        plain(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    train(tmp_path, config=CONFIG.model_copy(update={"epochs": 1, "clip_norm": 0.01}))
    assert len(steps) == 3
    assert max(steps) == pytest.approx(0.01, rel=1e-3)


def test_an_average_of_the_weights_is_another_encoder_than_the_last_one(tmp_path: Path) -> None:
    last, trained = train(tmp_path / "last")
    mean, averaged = train(tmp_path / "mean", config=CONFIG.model_copy(update={"ema_decay": 0.999}))
    assert averaged.progress == trained.progress
    assert not torch.equal(last.blocks[0][0].weight, mean.blocks[0][0].weight)


def test_training_stops_when_the_loss_has_not_fallen_for_so_many_epochs_also_after_a_kill(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 9, "patience": 2, "learning_rate": 1e-12})
    _, trained = train(tmp_path / "whole", config=config)
    losses = trained.progress.losses
    assert trained.stopped_early
    assert len(losses) < 9
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) - 1 - best >= 2 or max(losses) - min(losses) < 0.1
    with pytest.raises(Killed):
        train(tmp_path / "killed", die_after=len(losses) - 1, config=config)
    assert train(tmp_path / "killed", config=config)[1].progress == trained.progress
    assert not train(tmp_path / "patient", config=config.model_copy(update={"patience": 0}))[1].stopped_early


@pytest.mark.parametrize(("losses", "patience", "stale"), [
    ([3, 2, 1], 1, False), ([3, 2, 2], 1, True), ([3, 2, 2], 2, False), ([3, 2, 2, 2], 2, True),
    ([3, 2, 1.9995], 1, True), ([3, 3.1, 2], 2, False), ([3, 3, 3, 3], 0, False), ([], 1, False),
])  # fmt: skip
def test_patience_counts_epochs_since_the_loss_last_fell(losses: list[float], patience: int, stale: bool) -> None:
    assert trainer._stale(losses, CONFIG.model_copy(update={"patience": patience})) is stale


def test_the_first_epoch_of_moco_with_its_random_queue_is_no_loss_to_beat() -> None:
    config = CONFIG.model_copy(update={"patience": 2, "method": "moco"})
    assert not trainer._stale([2.3, 3.9, 3.8, 3.7, 3.6], config)
    assert trainer._stale([2.3, 3.9, 3.9, 3.9], config)


def test_a_planted_collapse_raises_the_alarm_and_says_what_to_do(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"method": "moco", "learning_rate": 5.0, "epochs": 8})
    with pytest.raises(CollapseError, match=r"same projection.*lower pretrain\.learning_rate"):
        train(tmp_path / "alarm", config=config)
    deaf = train(tmp_path / "deaf", config=config.model_copy(update={"least_spread": 0.0}))[1]
    assert len(deaf.progress.losses) == 8


def test_a_projection_head_of_zeros_is_a_collapse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trainer._new_method

    def zeroed(*args: object) -> object:
        method = plain(*args)  # type: ignore[arg-type]
        method.projector[2].requires_grad_(False).weight.zero_()
        return method

    monkeypatch.setattr(trainer, "_new_method", zeroed)
    with pytest.raises(CollapseError, match=r"after epoch 3: spread 0\.0000"):
        train(tmp_path)


def test_a_loss_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "change", lambda images, *_: images * math.nan)
    with pytest.raises(CollapseError, match="no number"):
        train(tmp_path)


def test_a_normal_training_is_far_from_the_alarm(tmp_path: Path) -> None:
    for method in ("simclr", "moco"):
        trained = train(tmp_path / method, config=CONFIG.model_copy(update={"epochs": 6, "method": method}))[1]
        assert all(one.spread > 3 * CONFIG.least_spread for one in trained.progress.health[2:])


def test_health_equals_plain_computations_and_knows_points_lines_and_spheres() -> None:
    generator = torch.Generator().manual_seed(0)
    sphere = torch.randn(4000, 16, generator=generator)
    assert health(sphere).spread == pytest.approx(1, abs=0.01)
    assert health(sphere).rank == pytest.approx(16, abs=0.1)
    assert health(sphere).cosine == pytest.approx(0, abs=0.01)
    point = health(torch.ones(10, 16))
    assert (point.spread, point.cosine) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    line = torch.tensor([[1.0, t] for t in (-0.1, 0.0, 0.2)])
    assert health(line).rank == pytest.approx(1, abs=0.2)
    few = sphere[:5].double()
    unit = few / few.norm(dim=1, keepdim=True)
    cosines = [float(unit[i] @ unit[j]) for i in range(5) for j in range(5) if i != j]
    assert health(few).cosine == pytest.approx(np.mean(cosines))
    assert health(few).spread == pytest.approx(float(unit.numpy().std(axis=0).mean() * 4))


def test_what_cannot_be_cut_into_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3 parts"):
        PretrainConfig(batch_size=16, accumulate=3)
    config = CONFIG.model_copy(update={"accumulate": 8})
    with pytest.raises(ConfigError, match="too few"):
        train_encoder(new_encoder("smallcnn", 0), slices(10), Preprocess(input_px=32), config, tmp_path / "c")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_asked_for_and_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no GPU here"):
        train(tmp_path, config=CONFIG.model_copy(update={"device": "cuda"}))
