"""MoCo: InfoNCE against a plain loop and against lightly's, the queue, and the encoder that follows."""

import math

import numpy as np
import pytest
import torch
from compared import lightly_nt_xent
from torch.nn import functional

from scanloop.embedding.encoders import new_encoder
from scanloop.pretraining.averaging import Average, follow
from scanloop.pretraining.moco import MoCo, info_nce


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_info_nce(queries: np.ndarray, keys: np.ndarray, negatives: np.ndarray, temperature: float) -> float:
    """The formula of the paper, query by query."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        q, k = query / np.sqrt((query**2).sum()), key / np.sqrt((key**2).sum())
        right = math.exp(float(q @ k) / temperature)
        wrong = sum(math.exp(float(q @ other) / temperature) for other in negatives)
        total -= math.log(right / (right + wrong))
    return total / len(queries)


@pytest.mark.parametrize(("count", "kept", "temperature"), [(1, 1, 0.5), (5, 20, 0.2), (16, 7, 0.07)])
def test_the_loss_equals_the_papers_formula_query_by_query(count: int, kept: int, temperature: float) -> None:
    queries, keys = drawn(2, count, 6, seed=count).unbind()
    negatives = functional.normalize(drawn(kept, 6, seed=9), dim=1)
    loss = info_nce(queries, keys, negatives, temperature)
    expected = slow_info_nce(queries.numpy(), keys.numpy(), negatives.numpy(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_equal_projections_lose_the_log_of_all_there_are() -> None:
    same = functional.normalize(torch.ones(7, 4, dtype=torch.float64), dim=1)
    assert info_nce(same, same, same[:5], 0.2).item() == pytest.approx(math.log(6), abs=1e-12)


def small(queue: int = 12, momentum: float = 0.9) -> MoCo:
    torch.manual_seed(0)
    return MoCo(new_encoder("smallcnn", 0), 8, 0.2, momentum, queue)


def test_losses_gradients_and_queue_equal_those_of_lightlys_memory_bank_batch_after_batch() -> None:
    method, theirs = small(queue=12), lightly_nt_xent(0.2, (12, 8))
    theirs.memory_bank.bank, theirs.memory_bank.bank_ptr = method.queue.clone(), torch.zeros(1, dtype=torch.int64)
    for seed in range(5):  # 20 keys: the queue is overwritten from its start
        queries, keys = drawn(2, 4, 8, seed=seed).float().unbind()
        ours, other = queries.clone().requires_grad_(), queries.clone().requires_grad_()
        loss, expected = method.loss(ours, keys, torch.arange(4) + 4 * seed), theirs(other, keys)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, ours)[0], torch.autograd.grad(expected, other)[0])
        method.after_update()
        bank = theirs.memory_bank.bank
        torch.testing.assert_close(method.queue, bank if bank.shape == method.queue.shape else bank.T)


def test_the_queue_starts_at_random_holds_unit_keys_and_forgets_the_oldest_first() -> None:
    method = small(queue=6)
    before = method.queue.clone()
    assert len(torch.unique(before, dim=0)) == 6
    keys = drawn(9, 8).float() * 3
    for part in keys.split(4):  # of nine keys the last six are kept, from the place of the oldest on
        method.loss(part, part, torch.arange(len(part)))
        method.after_update()
    unit = functional.normalize(keys, dim=1)
    torch.testing.assert_close(method.queue, torch.stack([unit[6], unit[7], unit[8], unit[3], unit[4], unit[5]]))
    assert method.oldest == 3


def test_more_keys_than_the_queue_holds_leave_the_newest() -> None:
    method, keys = small(queue=3), functional.normalize(drawn(5, 8).float(), dim=1)
    method.loss(keys, keys, torch.arange(5))
    method.after_update()
    torch.testing.assert_close(method.queue, keys[2:])


def test_the_slow_encoder_follows_by_its_share_and_gets_no_gradient() -> None:
    method = small(momentum=0.75)
    slow, fast = method.slow_encoder.blocks[0][0].weight, method.encoder.blocks[0][0].weight
    start = slow.detach().clone()
    with torch.no_grad():
        fast.add_(1.0)
    first, second = method(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
    method.loss(first, second, torch.arange(4)).backward()
    method.after_update()
    torch.testing.assert_close(slow, start + 0.25)
    assert slow.grad is None
    assert fast.grad is not None


def test_an_average_equals_the_recursion_and_forgets_its_random_start_early() -> None:
    encoder = new_encoder("smallcnn", 0)
    average = Average(encoder, 0.9)
    weight = encoder.blocks[0][0].weight
    expected = weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            weight.fill_(float(step))
        encoder.blocks[0][1].num_batches_tracked.fill_(step)
        average.update(encoder)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.encoder.blocks[0][0].weight, expected)
    assert average.encoder.blocks[0][1].num_batches_tracked == 29


def test_following_with_a_share_of_one_stays_and_of_zero_copies() -> None:
    for decay, expected in ((1.0, 2.0), (0.0, 5.0)):
        slow = torch.full((3,), 2.0)
        follow([slow], [torch.full((3,), 5.0)], decay)
        assert slow.tolist() == [expected] * 3


def test_a_key_that_a_slice_left_in_the_queue_is_none_of_its_negatives() -> None:
    method, keys = small(queue=4), functional.normalize(drawn(4, 8).float(), dim=1)
    method.loss(keys, keys, torch.tensor([7, 8, 9, 10]))
    method.after_update()
    queries = drawn(2, 8, seed=1).float()
    loss = method.loss(queries, keys[:2], torch.tensor([8, 30]))
    first = info_nce(queries[:1], keys[:1], keys[[0, 2, 3]], 0.2)
    second = info_nce(queries[1:], keys[1:2], keys, 0.2)
    torch.testing.assert_close(loss, (first + second) / 2)
