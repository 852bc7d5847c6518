"""Which method, if any: the first that out-of-fold evidence does not speak against, else supervised."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from scanloop.calibration.scaling import fit_temperature, probabilities_of
from scanloop.evaluation.calibration import log_loss
from scanloop.evaluation.metrics import macro_f1
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.dataset import Known, Pool
from scanloop.learning.heads import Head, TunedHead, tune_head
from scanloop.learning.semisupervised.agreement import agreement
from scanloop.learning.semisupervised.consensus import consensus
from scanloop.learning.semisupervised.method import Method, fit_on_targets
from scanloop.learning.semisupervised.mixture import mixture
from scanloop.learning.semisupervised.opinions import Opinions
from scanloop.learning.semisupervised.self_training import self_training
from scanloop.learning.semisupervised.spreading import spreading
from scanloop.types import Float, Labels

SUPERVISED = "supervised"

METHODS: Mapping[str, Method] = {
    "mixture": mixture,
    "consensus": consensus,
    "spreading": spreading,
    "agreement": agreement,
    "self_training": self_training,
}
"""Methods by name."""

TRIED = ("mixture", "consensus", "spreading")
"""Methods that the policy tries, the first first: those of soft labels. Hard ones, by agreement or by the rule, gained
less than the first on every set of docs/studies/unlabelled-images.md, and are there to be compared with."""


@dataclass(frozen=True)
class Evidence:
    """Out-of-fold probabilities of supervised training and of each method, on the same folds.

    Attributes:
        probabilities: By name, (repeats, n, classes), from heads that never saw the row's group.
        labels: (n,) true class indices.
    """

    probabilities: Mapping[str, Float]
    labels: Labels

    def macro_f1(self, name: str) -> float:
        """Mean macro-F1 over the repeats."""
        return float(np.mean([macro_f1(one, self.labels)[0] for one in self.probabilities[name]]))

    def log_loss(self, name: str) -> float:
        """Mean log-loss over rows and repeats."""
        return float(np.mean([log_loss(one, self.labels) for one in self.probabilities[name]]))


@dataclass(frozen=True)
class Choice:
    """What the policy decides.

    Attributes:
        name: Method, or "supervised" where none helps.
        reason: Why, in words, with the figures.
        gains: Out-of-fold macro-F1 of each method that was tried minus that of supervised training.
    """

    name: str
    reason: str
    gains: Mapping[str, float]


def gather(known: Known, pool: Pool, classes: int, folds: int, repeats: int, seed: int) -> Evidence:
    """Try methods by repeated group cross-validation over the randomly drawn labels.

    In each fold heads are tuned, the graph is built and the pool judged anew without the held-out rows and without the
    pool's rows of their groups. Each way of training has one temperature of its own, fitted on its out-of-fold logits.

    Raises:
        TooFewLabelsError: A class has fewer than three groups.
    """
    cuts = group_folds(known.labels, known.groups, folds, repeats, seed)
    logits = {name: np.empty((repeats, len(known.labels), classes)) for name in (SUPERVISED, *TRIED)}
    for cut in cuts:
        train, test = known.take(cut.train), known.take(cut.test)
        tuned = tune_head(train, classes, folds, cut.seed(seed))
        for name, head in heads(tuned, train, pool.without(test.groups), TRIED).items():
            logits[name][cut.repeat, cut.test] = head.logits(test.vectors)
    drawn = known.drawn
    truth = np.tile(known.judging[drawn], repeats)
    found = {}
    for name, values in logits.items():
        temperature = fit_temperature(values[:, drawn].reshape(-1, classes), truth)
        found[name] = np.stack([probabilities_of(one, temperature) for one in values[:, drawn]])
    return Evidence(found, known.judging[drawn])


def choose(evidence: Evidence) -> Choice:
    """The first method, in the order of `TRIED`, whose log-loss is below supervised training's; else supervised.

    At a hundred labels the largest of several gains is mostly luck, so the order is fixed beforehand and evidence has
    only to refuse. It is the log-loss, since macro-F1 moves by whole images.
    """
    base, limit = evidence.macro_f1(SUPERVISED), evidence.log_loss(SUPERVISED)
    gains = {name: evidence.macro_f1(name) - base for name in TRIED}
    for name, gain in gains.items():
        change = evidence.log_loss(name) - limit
        if change < 0:
            figures = f"{change:+.3f} on {limit:.3f}, {gain:+.3f} of macro-F1 on {base:.3f}"
            return Choice(name, f"{name} lowers the log-loss out of fold: {figures}", gains)
    least = min(TRIED, key=evidence.log_loss)
    change = evidence.log_loss(least) - limit
    return Choice(SUPERVISED, f"every method raises the log-loss out of fold, {least} by {change:+.3f}", gains)


def heads(tuned: TunedHead, known: Known, pool: Pool, names: Collection[str] = METHODS.keys()) -> dict[str, Head]:
    """Head of some methods and of supervised training by name, which are one where the pool is empty.

    Args:
        tuned: Head tuned on the labelled rows.
        known: These rows.
        pool: Rows without a label, none of a group that the heads will be tried on.
        names: Keys of `METHODS`.
    """
    found = dict.fromkeys((SUPERVISED, *names), tuned.head)
    if len(pool.vectors):
        opinions = Opinions(tuned, known, pool)
        found |= {name: fit_on_targets(tuned, known, pool, METHODS[name](opinions)) for name in names}
    return found
