"""How often the gate promotes a challenger that is worse by exactly the margin, over simulated hold-outs.

.venv/bin/python benchmarks/bench_gate.py --simulations 400

Prints JSON: a row a setting (groups, images a group, share of the rarer class, what the challenger gains elsewhere)
with the share that passes the bootstrap's bound, the chance under the null hypothesis, and both, which `promote` asks.
"""

import argparse
import json

import numpy as np
from scipy.optimize import brentq

from scanloop.evaluation.tallies import lower_bound, macro_f1_difference, tally, tilted_p_value
from scanloop.grouping import one_a_group

BOTH_WRONG, MARGIN, TOGETHER = 0.03, 0.02, 0.6


def expected_f1(share: float, error: float) -> float:
    """Macro-F1 of a model that errs alike in both classes."""
    right = np.array([(1 - share) * (1 - error), share * (1 - error)])
    said = right + np.array([share, 1 - share]) * error
    return float((2 * right / (np.array([1 - share, share]) + said)).mean())


def loss_of_margin(share: float, gain: float) -> float:
    """Share of images that the challenger must lose, so that its macro-F1 is worse by the margin."""
    least = expected_f1(share, BOTH_WRONG + gain) - MARGIN
    return float(brentq(lambda rate: expected_f1(share, BOTH_WRONG + rate) - least, 0, 0.5))


def simulate(
    rng: np.random.Generator, groups: int, share: float, loss: float, gain: float, size: int
) -> tuple[np.ndarray, ...]:
    """Labels, champion, challenger and groups; most groups' images have one fate."""
    index = np.repeat(np.arange(groups), rng.integers(1, size + 1, groups))
    labels = (rng.random(groups) < share).astype(int)[index]
    together = (rng.random(groups) < TOGETHER)[index]
    fate = np.where(together, rng.random(groups)[index], rng.random(len(index)))
    wrong = fate < BOTH_WRONG
    lost = ~wrong & (fate < BOTH_WRONG + loss)
    gained = ~wrong & ~lost & (fate < BOTH_WRONG + loss + gain)
    return labels, np.where(wrong | gained, 1 - labels, labels), np.where(wrong | lost, 1 - labels, labels), index


def passes(rng: np.random.Generator, drawn: tuple[np.ndarray, ...], tail: float) -> tuple[bool, bool]:
    """Whether a challenger passes the bound, and the chance."""
    labels, champion, challenger, index = drawn
    found = tally(labels, index, [challenger, champion], 2)
    rows = one_a_group(index, rng)
    one = tally(labels[rows], index[rows], [challenger[rows], champion[rows]], 2)
    bound = lower_bound(found, macro_f1_difference(found), tail, 0) >= -MARGIN
    return bound, tilted_p_value(one, macro_f1_difference(one), -MARGIN, tail, 0) <= tail


def main() -> None:
    """Simulate every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--tail", type=float, default=0.0125, help="of the first look at the default confidence")
    options = parser.parse_args()
    rows = []
    for share, gain in ((share, gain) for share in (0.5, 0.15) for gain in (0.0, 0.02, 0.05)):
        loss = loss_of_margin(share, gain)
        for groups, size in ((groups, size) for groups in (100, 300, 1000) for size in (1, 4)):
            rng = np.random.default_rng(0)
            each = np.array([
                passes(rng, simulate(rng, groups, share, loss, gain, size), options.tail)
                for _ in range(options.simulations)
            ])  # fmt: skip
            rows.append({
                "groups": groups, "images_a_group_up_to": size, "share": share, "gain": gain, "loss": round(loss, 4),
                "bound": float(each[:, 0].mean()), "chance": float(each[:, 1].mean()),
                "both": float(each.all(axis=1).mean()),
            })  # fmt: skip
    worst = {name: max(row[name] for row in rows) for name in ("bound", "chance", "both")}
    print(json.dumps({"simulations": options.simulations, "tail": options.tail, "highest": worst, "settings": rows}))


if __name__ == "__main__":
    main()
