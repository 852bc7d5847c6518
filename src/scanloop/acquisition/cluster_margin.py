"""Hesitation and variety at once (Citovsky et al. 2021, arXiv:2107.14263), with an eye on the balance of the classes.

The images of smallest margin are clustered, and one stands for each cluster: a batch of the smallest margins alone is
full of images that look alike. The batch is filled class by class, as the head sees them, so that with what is
labelled already the classes come out even: in an archive of few diseased images the boundary lies deep in the healthy.
"""

import numpy as np

from scanloop.acquisition import margin
from scanloop.acquisition.clusters import representatives
from scanloop.acquisition.situation import Situation
from scanloop.types import Labels


def pick(situation: Situation, count: int) -> Labels:
    """Representatives of the images of smallest margin in each predicted class, in turns from class to class."""
    margins, predicted = margin.margin(situation.probabilities), situation.probabilities.argmax(axis=1)
    wanted = quotas(np.bincount(situation.labels, minlength=situation.classes), count)
    parts: list[Labels] = []
    rest = situation
    for label in np.argsort(wanted, kind="stable"):  # the rarer wish first: what it takes is not much to the other
        rows = np.flatnonzero((predicted == label) & rest.free)
        rows = rows[np.argsort(margins[rows], kind="stable")][: situation.breadth * wanted[label]]
        stand = representatives(situation.points(rows), situation.groups[rows], int(wanted[label]), situation.seed)
        chosen = rows[stand]
        parts.append(chosen[np.argsort(margins[chosen], kind="stable")])
        rest = rest.without(chosen)
    turns = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
    found = np.concatenate(parts)[np.argsort(turns, kind="stable")]
    more = rest.first(np.argsort(margins, kind="stable"), count - len(found))  # a class may hardly ever be predicted
    return np.concatenate([found, more])


def quotas(have: Labels, count: int) -> Labels:
    """Labels to buy of each class so that all come as near to even as `count` labels can bring them.

    >>> quotas(np.array([8, 2, 0]), 5).tolist(), quotas(np.array([1, 1]), 3).tolist()
    ([0, 2, 3], [2, 1])
    """
    wanted: Labels = np.zeros(len(have), dtype=np.int64)
    for _ in range(count):
        wanted[int((have + wanted).argmin())] += 1
    return wanted
