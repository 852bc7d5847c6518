"""NT-Xent: the loss of SimCLR's paper, against its formula pair by pair and against lightly's."""

import math

import numpy as np
import pytest
import torch

from scanloop.pretraining.simclr import nt_xent


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


@pytest.mark.parametrize(("count", "temperature"), [(2, 0.5), (16, 0.1), (33, 0.2)])
def test_loss_and_gradient_equal_those_of_lightly(count: int, temperature: float) -> None:
    from compared import lightly_nt_xent

    views = torch.randn(2, count, 12, dtype=torch.float64, generator=generator(count)) * 2
    ours, theirs = views.clone().requires_grad_(), views.clone().requires_grad_()
    loss, expected = nt_xent(ours[0], ours[1], temperature), lightly_nt_xent(temperature)(theirs[0], theirs[1])
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, ours)[0], torch.autograd.grad(expected, theirs)[0]
    torch.testing.assert_close(*gradients)
