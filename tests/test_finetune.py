"""Fine-tuning: the last two blocks and the head move, at their own rates, and nothing else does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from chain import PLAN
from learning_data import new_known

from scanloop.calibration.maps import temperature
from scanloop.calibration.scaling import fit_temperature
from scanloop.config import PseudoLabelConfig, RetrainConfig
from scanloop.embedding.encoders import Encoder, new_encoder
from scanloop.learning import finetune as finetune_module
from scanloop.learning import two_stage
from scanloop.learning.cross_validation import cross_fitted, group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.finetune import Classifier, Maps, finetune, frozen_maps, tail_logits
from scanloop.learning.heads import Head, tune_head
from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.policy import SUPERVISED
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.learning.two_stage import Material, Trained, train

CONFIG = RetrainConfig(seed=1, finetune_epochs=2, batch_size=8, cross_validation=PLAN)
FROZEN = CONFIG.model_copy(update={"finetune_epochs": 0})


def images(n: int = 24) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = new_encoder("smallcnn", seed=2).train()
    with torch.no_grad():
        encoder(images(64))  # statistics that are not those of a fresh network
    return encoder.eval()


@pytest.fixture(scope="module")
def head() -> Head:
    draw = np.random.default_rng(0)
    return Head(draw.normal(size=(256, 2)), draw.normal(size=2))


@pytest.fixture(scope="module")
def maps(encoder: Encoder) -> Maps:
    return Maps(frozen_maps(encoder, images()), np.eye(2)[np.arange(24) % 2], np.ones(24))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_classifier_is_the_encoder_and_the_head(encoder: Encoder, head: Head) -> None:
    with torch.inference_mode():
        logits = Classifier(encoder, head)(images()).numpy()
        embeddings = encoder(images()).numpy()
    np.testing.assert_allclose(logits, head.logits(embeddings), rtol=1e-4, atol=1e-4)


def test_logits_from_frozen_maps_are_those_of_the_whole_within_half_precision(
    encoder: Encoder, head: Head, maps: Maps
) -> None:
    model = Classifier(encoder, head)
    with torch.inference_mode():
        whole = model(images()).numpy()
    assert maps.values.dtype == torch.float16
    np.testing.assert_allclose(tail_logits(model, maps.values), whole, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(tail_logits(model, maps.values, 5), tail_logits(model, maps.values), atol=1e-4)


def test_only_the_last_two_blocks_and_the_head_change_and_the_given_encoder_does_not(
    encoder: Encoder, head: Head, maps: Maps
) -> None:
    before = state(encoder)
    model = finetune(encoder, head, maps, CONFIG, seed=0)
    assert equal(state(encoder), before)
    for depth, (block, original) in enumerate(zip(model.encoder.blocks, encoder.blocks, strict=True)):
        assert equal(state(block), state(original)) == (depth < 2)
        for statistic in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(getattr(block[1], statistic), getattr(original[1], statistic))
    assert not equal(state(model.head), state(Classifier(encoder, head).head))


def test_without_epochs_the_model_is_the_frozen_head(encoder: Encoder, head: Head, maps: Maps) -> None:
    assert equal(state(finetune(encoder, head, maps, FROZEN, seed=0)), state(Classifier(encoder, head)))


def test_a_seed_gives_the_same_bits_and_another_seed_another_order(encoder: Encoder, head: Head, maps: Maps) -> None:
    first, again, other = (state(finetune(encoder, head, maps, CONFIG, seed)) for seed in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)


def test_earlier_blocks_take_smaller_steps_and_the_head_its_own(
    encoder: Encoder, head: Head, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.optim.AdamW] = []
    make = torch.optim.AdamW

    def spy(*args: Any, **kwargs: Any) -> torch.optim.AdamW:
        seen.append(make(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(torch.optim, "AdamW", spy)
    model = finetune(encoder, head, maps, CONFIG, seed=0)
    third, last, top = seen[0].param_groups
    assert [group["initial_lr"] for group in (third, last, top)] == [3e-5, 1e-4, 1e-3]
    assert [group["lr"] for group in (third, last, top)] == pytest.approx([0, 0, 0], abs=1e-9)  # at the end
    for group, module in zip((third, last, top), (*model.encoder.blocks[-2:], model.head), strict=True):
        assert {id(one) for one in group["params"]} == {id(one) for one in module.parameters()}
    moved = [
        (block[0].weight - original[0].weight).abs().max().item()
        for block, original in zip(model.encoder.blocks, encoder.blocks, strict=True)
    ]
    assert moved[0] == moved[1] == 0 < moved[2] < 0.6 * moved[3]


def test_training_lowers_the_loss_on_its_own_rows(encoder: Encoder, maps: Maps) -> None:
    blank = Head(np.zeros((256, 2)), np.zeros(2))
    config = CONFIG.model_copy(update={"finetune_epochs": 16, "learning_rate": 5e-3, "head_learning_rate": 5e-3})
    model = finetune(encoder, blank, maps, config, seed=0)
    logits = torch.from_numpy(tail_logits(model, maps.values))
    assert torch.nn.functional.cross_entropy(logits, torch.from_numpy(maps.targets)) < np.log(2) - 0.05


def test_rows_without_weight_teach_nothing(encoder: Encoder, head: Head, maps: Maps) -> None:
    weights = (np.arange(24) < 16).astype(float)
    flipped = np.where(weights[:, None] > 0, maps.targets, 1 - maps.targets)
    first, other = (
        finetune(encoder, head, Maps(maps.values, targets, weights), CONFIG, seed=0)
        for targets in (maps.targets, flipped)
    )
    assert equal(state(first), state(other))
    heavy = finetune(encoder, head, Maps(maps.values, flipped, np.ones(24)), CONFIG, seed=0)
    assert not equal(state(first), state(heavy))


def test_a_weight_is_the_share_of_the_epochs_that_a_row_takes_part_in() -> None:
    weights = np.repeat([1.0, 0.25, 0.0], 8)
    config = CONFIG.model_copy(update={"finetune_epochs": 800, "batch_size": 5})
    batches = list(finetune_module._batches(weights, config, seed=0))
    assert max(map(len, batches)) == 5
    shares = np.bincount(np.concatenate(batches), minlength=24) / 800
    np.testing.assert_array_equal(shares[:8], 1)
    np.testing.assert_allclose(shares[8:16], 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 800))
    np.testing.assert_array_equal(shares[16:], 0)


def test_a_soft_label_pulls_as_far_as_it_is_sure(encoder: Encoder, maps: Maps) -> None:
    """With half a mind for each class the head learns to say a half."""
    blank = Head(np.zeros((256, 2)), np.array([-1.0, 1.0]))
    config = CONFIG.model_copy(update={"finetune_epochs": 30, "head_learning_rate": 0.02})
    model = finetune(encoder, blank, Maps(maps.values, np.full((24, 2), 0.5), np.ones(24)), config, seed=0)
    logits = tail_logits(model, maps.values)
    assert np.abs(logits[:, 1] - logits[:, 0]).mean() < 0.5  # it began at 2


RULE = PseudoLabelConfig(min_confidence=0.6, neighbours=5)


def material(bought: int = 0, pool: int = 0, n: int = 36) -> Material:
    """Rows whose frozen maps carry their number, so that it shows who was trained on."""
    known = new_known(n=n, d=256, bought=bought)
    numbers = torch.arange(n).view(-1, 1, 1, 1).expand(n, 64, 4, 4).half()
    like = new_known(n=max(pool, 1), d=256, seed=5)
    groups = np.array([f"g{row:04d}" for row in range(pool)], dtype=object)  # the pool shares the labelled groups
    rows = Pool(np.array([f"u{row}" for row in range(pool)], dtype=object), like.vectors[:pool], groups)
    targets = Targets(np.eye(2)[like.labels[:pool]], np.ones(pool), np.arange(pool))
    recipe = Recipe("mixture" if pool else SUPERVISED, (0.6, 0.6) if pool else None, RULE)
    pool_numbers = 1000 + torch.arange(pool).view(-1, 1, 1, 1).expand(pool, 64, 4, 4).half()
    return Material(known, numbers, rows, pool_numbers, targets, recipe, 2)


def test_no_fold_trains_on_a_row_or_a_pseudo_label_of_a_group_that_it_predicts(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuff, calls = material(pool=18), []

    def spy(encoder: Encoder, head: Head, maps: Maps, *rest: Any) -> Classifier:
        calls.append(maps.values[:, 0, 0, 0].numpy().astype(int))
        return Classifier(encoder, head)

    monkeypatch.setattr(two_stage, "finetune", spy)
    trained = train(encoder, stuff, CONFIG)
    used_pool = 0
    for cut, numbers in zip(trained.cuts, calls, strict=False):
        held_out = set(stuff.known.groups[cut.test])
        rows, pool = numbers[numbers < 1000], numbers[numbers >= 1000] - 1000
        np.testing.assert_array_equal(np.sort(rows), np.sort(cut.train))
        assert not held_out & set(stuff.known.groups[rows])
        assert not held_out & set(stuff.pool.groups[pool])
        used_pool += len(pool)
    assert used_pool > 0


def test_the_seed_of_the_cross_validation_cuts_the_folds(encoder: Encoder) -> None:
    stuff, known = material(), material().known
    for plan in (PLAN, PLAN.model_copy(update={"seed": 8})):
        expected = group_folds(known.labels, known.groups, PLAN.folds, PLAN.repeats, plan.seed)
        cuts = train(encoder, stuff, FROZEN.model_copy(update={"cross_validation": plan})).cuts
        for cut, fold in zip(cuts, expected, strict=True):
            np.testing.assert_array_equal(cut.test, fold.test)


def by_hand(known: Known, config: RetrainConfig) -> np.ndarray:
    """Out-of-fold logits (repeats, n, 2) of heads on frozen features, each over its head's temperature, by fold."""
    plan = config.cross_validation
    logits = np.empty((plan.repeats, len(known.labels), 2))
    for cut in group_folds(known.labels, known.groups, plan.folds, plan.repeats, plan.seed):
        seen = known.take(~np.isin(known.groups, known.groups[cut.test]))
        tuned = tune_head(seen, 2, plan.folds, config.seed + 1009 * cut.repeat + cut.number)
        logits[cut.repeat, cut.test] = tuned.head.logits(known.vectors[cut.test]) / tuned.temperature
    return logits


def test_temperature_and_out_of_fold_logits_come_from_drawn_rows_and_unseen_groups(encoder: Encoder) -> None:
    stuff, known = material(), new_known(n=36, bought=12, gap=0.6)  # that the features are narrow matters to no head
    wrong = np.where(known.drawn, known.labels, np.arange(36) % 2)
    stuff = replace(stuff, known=replace(known, labels=wrong))
    config = FROZEN.model_copy(update={"calibration": "temperature"})
    trained, logits = train(encoder, stuff, config), by_hand(stuff.known, config)
    drawn = stuff.known.drawn
    truth = np.tile(wrong[drawn], PLAN.repeats)
    own = tune_head(stuff.known, 2, PLAN.folds, config.seed).temperature
    expected = fit_temperature(logits[:, drawn].reshape(-1, 2), truth)
    assert trained.calibrator.temperature == pytest.approx(own * expected, rel=1e-6)
    everyone = fit_temperature(logits.reshape(-1, 2), np.tile(wrong, PLAN.repeats))
    assert abs(everyone / expected - 1) > 0.02  # the comparison means something
    expected = cross_fitted(
        logits, trained.cuts, drawn, lambda cut, rows: temperature(logits[cut.repeat, rows], wrong[rows])
    )[:, drawn]
    np.testing.assert_allclose(trained.out_of_fold, expected, atol=1e-9)
    assert trained.out_of_fold.shape == (PLAN.repeats, 24, 2)


def test_without_epochs_and_pseudo_labels_the_model_is_the_tuned_head(encoder: Encoder) -> None:
    stuff = material()
    trained = train(encoder, stuff, FROZEN)
    tuned = tune_head(stuff.known, 2, PLAN.folds, FROZEN.seed)
    assert trained.stage == "frozen features"
    assert set(trained.log_loss) == {"frozen features"}
    np.testing.assert_allclose(trained.model.head.weight.detach().numpy(), tuned.head.weights.T, rtol=1e-6)


def test_the_stage_with_the_smaller_out_of_fold_loss_is_kept_whichever_it_is(encoder: Encoder) -> None:
    def trained(learnable: bool) -> Trained:
        """Frozen features that know nothing, and maps that know the class, or the other way round."""
        stuff = replace(material(), known=new_known(n=36, d=256, gap=20))
        blind = replace(stuff.known, vectors=np.random.default_rng(0).normal(size=(36, 256)).astype(np.float16))
        bright = torch.from_numpy(stuff.known.labels).view(-1, 1, 1, 1).expand(36, 64, 4, 4).half()
        if learnable:
            stuff = replace(stuff, known=blind, known_maps=bright)
        return train(encoder, stuff, config)

    once = PLAN.model_copy(update={"repeats": 1, "folds": 2})
    config = CONFIG.model_copy(update={"finetune_epochs": 4, "learning_rate": 1e-2, "cross_validation": once})

    for learnable, stage in ((True, "fine-tuned"), (False, "frozen features")):
        found = trained(learnable)
        assert found.stage == stage == min(found.log_loss, key=lambda name: found.log_loss[name])
        same_blocks = equal(state(found.model.encoder), state(encoder))
        assert same_blocks == (stage == "frozen features")


@pytest.mark.parametrize("changes", [{"class_weights": True}, {"focus": 2.0}, {"mixup": 0.5}])
def test_what_is_configured_of_the_loss_changes_the_model(
    encoder: Encoder, head: Head, maps: Maps, changes: dict[str, object]
) -> None:
    rare = Maps(maps.values, np.eye(2)[(np.arange(24) % 4 == 0).astype(int)], maps.weights)
    plain, other = (finetune(encoder, head, rare, CONFIG.model_copy(update=one), seed=0) for one in ({}, changes))
    assert not equal(state(plain), state(other))


def test_soft_labels_teach_the_head_and_no_block(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    stuff, calls = material(pool=18), []
    soft = replace(stuff.targets, promoted=np.empty(0, dtype=np.int64))
    stuff = replace(stuff, targets=soft, recipe=Recipe("mixture", None, RULE))

    def spy(encoder: Encoder, head: Head, maps: Maps, *rest: Any) -> Classifier:
        calls.append((head, maps.values[:, 0, 0, 0].numpy().astype(int)))
        return Classifier(encoder, head)

    monkeypatch.setattr(two_stage, "finetune", spy)
    train(encoder, stuff, CONFIG)
    assert len(calls) >= PLAN.folds * PLAN.repeats
    assert all((numbers < 1000).all() for _, numbers in calls)
    alone = replace(stuff, recipe=Recipe(SUPERVISED, None, RULE))
    count = len(calls)
    train(encoder, alone, CONFIG)
    assert not np.allclose(calls[0][0].weights, calls[count][0].weights)  # the head heard the pool
