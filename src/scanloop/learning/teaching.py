"""Everything that is decided about a pool: what is promoted, by what method the rest teaches, and whether it may."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.learning.dataset import Known, Pool
from scanloop.learning.gate import Verdict, judge
from scanloop.learning.heads import TunedHead, tune_head
from scanloop.learning.promotion import Promotion, decide
from scanloop.learning.pseudo_labels import Proposal, propose
from scanloop.learning.semisupervised.method import Targets
from scanloop.learning.semisupervised.policy import SUPERVISED, Choice, choose, gather
from scanloop.learning.semisupervised.recipe import Recipe
from scanloop.learning.trial import trial_by_cross_validation, trial_on_validation
from scanloop.sections.pool import PseudoLabelConfig
from scanloop.types import Labels

PROMOTED = "promoted"


@dataclass(frozen=True)
class Teaching:
    """What a pool teaches.

    Attributes:
        tuned: Head that has not learnt from the audit; it scores the pool.
        proposal: What the rule says of each image of the pool.
        promotion: What the audit certifies.
        choice: Method that the policy picks, or that is configured.
        verdict: The gate's word on both.
        recipe: What is left after the gate.
        promoted: (n,) images of the pool whose label counts.
        reasons: (n,) "promoted", or why not.
        drawn: (k,) indices of the pool's images that are learnt from.
        targets: Their soft labels and weights.
    """

    tuned: TunedHead
    proposal: Proposal
    promotion: Promotion
    choice: Choice
    verdict: Verdict
    recipe: Recipe
    promoted: npt.NDArray[np.bool_]
    reasons: list[str]
    drawn: Labels
    targets: Targets


def teach(
    known: Known, audited: npt.NDArray[np.bool_], pool: Pool, validation: Known, config: PseudoLabelConfig
) -> Teaching:
    """Decide what a pool teaches.

    Args:
        known: Labelled rows, every class among them.
        audited: (m,) which of them were drawn at random from the pool, to judge what is said of it.
        pool: Rows without a label.
        validation: Held-out rows for the gate; without every class it takes cross-validation.
        config: Method, rule, certificate and gate.

    Raises:
        TooFewLabelsError: A class has fewer than three groups.
    """
    classes, plan = len(np.unique(known.labels)), config.cross_validation
    blind, audit = known.take(~audited), known.take(audited)
    tuned = tune_head(blind, classes, plan.folds, config.seed)
    proposal = propose(tuned, blind, pool, classes, config)
    promotion = decide(tuned, blind, audit, proposal, pool, config)
    drawn = _drawn(len(pool.slice_ids), config)
    part = pool.take(drawn)
    choice = _choice(known, part, classes, config)
    verdict = _try(known, part, validation, Recipe(choice.name, promotion.thresholds, config), config)
    method = choice.name if verdict.harmless else SUPERVISED
    recipe = Recipe(method, promotion.thresholds if verdict.passed else None, config)
    promoted = np.zeros(len(pool.slice_ids), dtype=bool)
    if recipe.thresholds is not None:
        promoted = proposal.above(np.array(recipe.thresholds))
    learner = tuned if not audited.any() else tune_head(known, classes, plan.folds, config.seed)
    targets = Recipe(method, None, config).targets(learner, known, part)
    rows = np.flatnonzero(promoted[drawn])
    targets = targets.promoting(rows, np.eye(classes)[proposal.labels[drawn[rows]]], config.weight)
    reasons = _reasons(proposal, promotion, promoted, verdict)
    return Teaching(tuned, proposal, promotion, choice, verdict, recipe, promoted, reasons, drawn, targets)


def _drawn(count: int, config: PseudoLabelConfig) -> Labels:
    """Rows that are learnt from, drawn without a look at what is said of them."""
    rows = np.random.default_rng(config.seed).permutation(count)[: config.max_pool_slices]
    return np.sort(rows).astype(np.int64)


def _choice(known: Known, pool: Pool, classes: int, config: PseudoLabelConfig) -> Choice:
    if config.method != "auto":
        return Choice(config.method, "as configured", {})
    if not len(pool.slice_ids):
        return Choice(SUPERVISED, "the pool is empty", {})
    plan = config.cross_validation
    return choose(gather(known, pool, classes, plan.folds, plan.repeats, plan.seed))


def _try(known: Known, pool: Pool, validation: Known, recipe: Recipe, config: PseudoLabelConfig) -> Verdict:
    plan = config.cross_validation
    if len(np.unique(validation.labels)) == len(np.unique(known.labels)):
        return judge(trial_on_validation(known, pool, validation, recipe, plan, config.seed), config)
    return judge(trial_by_cross_validation(known, pool, recipe, plan, config.seed), config)


def _reasons(proposal: Proposal, promotion: Promotion, promoted: npt.NDArray[np.bool_], verdict: Verdict) -> list[str]:
    """Why each image of the pool is promoted or not: the first test that fails is named."""
    if promotion.thresholds is None:
        passing = np.full(len(promoted), "no certificate", dtype=object)
    else:
        above = proposal.above(np.array(promotion.thresholds))
        opened = PROMOTED if verdict.passed else "refused by the hold-out gate"
        passing = np.where(above, opened, "below the certified confidence").astype(object)
    return [str(reason) for reason in np.where(proposal.accepted, passing, proposal.refusals)]
