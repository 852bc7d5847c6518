"""Certificates: exact bounds, thresholds in a fixed order, and promises that hold as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
from learning_data import new_known, new_pool
from scipy.stats import binomtest

from scanloop.acquisition.audit import draw_audit
from scanloop.learning.certificate import Audited, audits_needed, certify, precision_bound, to_be_bought
from scanloop.learning.dataset import Known
from scanloop.learning.heads import tune_head
from scanloop.learning.promotion import decide, group_share
from scanloop.learning.pseudo_labels import propose
from scanloop.sections.pool import PseudoLabelConfig

NONE = np.empty(0, dtype=np.int64)


def audited(confidence: np.ndarray, right: np.ndarray, predicted: np.ndarray | None = None) -> Audited:
    count = len(confidence)
    said = np.zeros(count, dtype=np.int64) if predicted is None else predicted
    return Audited(confidence, np.ones(count, bool), said, right)


@pytest.mark.parametrize(("errors", "needed"), [(0, 59), (1, 93), (2, 124)])
def test_so_many_audited_images_prove_ninety_five_percent_and_one_fewer_does_not(errors: int, needed: int) -> None:
    assert audits_needed(errors, 0.95, 0.05) == needed
    for count, proven in ((needed, True), (needed - 1, False)):
        p = binomtest(count - errors, count, 0.95, alternative="greater").pvalue
        assert (p <= 0.05) == proven


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (190, 200)])
def test_the_bound_is_scipys_exact_one(right: int, count: int) -> None:
    expected = binomtest(right, count, alternative="greater").proportion_ci(0.95, method="exact").low
    assert precision_bound(right, count, 0.05) == pytest.approx(expected, abs=1e-9)


def test_fifty_nine_right_ones_are_certified_and_fifty_eight_lack_one() -> None:
    for count, missing in ((59, 0), (58, 1)):
        certificate = certify(audited(np.full(count, 0.9), np.ones(count, bool)), 2, 0.95, 0.05, 0.8)
        (claim,) = certificate.claims
        assert (claim.scope, claim.audited, claim.errors, certificate.missing) == (-1, count, 0, missing)
        assert (claim.threshold is not None) == (missing == 0)
        assert (claim.precision_low >= 0.95) == (missing == 0)


def test_thresholds_go_down_until_one_is_not_proven() -> None:
    confidence = np.repeat([0.985, 0.945, 0.905, 0.85], [100, 100, 60, 60])
    right = np.ones(320, bool)
    right[:1], right[200:215] = False, False  # one of the surest is wrong, and a quarter of those from 0.9 to 0.94
    (claim,) = certify(audited(confidence, right), 2, 0.95, 0.05, 0.8).claims
    assert (claim.threshold, claim.audited, claim.errors) == (0.92, 200, 1)
    right[200:215] = True
    (claim,) = certify(audited(confidence, right), 2, 0.95, 0.05, 0.8).claims
    assert (claim.threshold, claim.audited, claim.errors) == (0.8, 320, 1)


def test_nothing_below_the_first_failure_is_certified_however_right_it_is() -> None:
    confidence, right = np.repeat([0.985, 0.85], [80, 1000]), np.ones(1080, bool)
    right[:20] = False
    (claim,) = certify(audited(confidence, right), 2, 0.95, 0.05, 0.8).claims
    assert claim.threshold is None
    assert precision_bound(1060, 1080, 0.05) > 0.95  # all together would have been proven


def test_each_class_has_its_own_claim_where_each_was_audited_enough() -> None:
    predicted = np.repeat([0, 1], [80, 80])
    right = np.ones(160, bool)
    right[80:100] = False
    certificate = certify(audited(np.full(160, 0.95), right, predicted), 2, 0.95, 0.05, 0.8)
    good, bad = certificate.claims
    assert (good.scope, good.delta, bad.scope, bad.errors) == (0, 0.025, 1, 20)
    np.testing.assert_array_equal(certificate.thresholds(2), [0.8, np.inf])
    few = certify(audited(np.full(100, 0.95), right[:100], predicted[:100]), 2, 0.95, 0.05, 0.8)
    assert [claim.scope for claim in few.claims] == [-1]


def test_images_that_the_rule_refuses_prove_nothing() -> None:
    audit = replace(audited(np.full(100, 0.9), np.ones(100, bool)), accepted=np.arange(100) < 50)
    (claim,) = certify(audit, 2, 0.95, 0.05, 0.8).claims
    assert (claim.audited, claim.threshold) == (50, None)


@pytest.mark.parametrize("precision_at", [lambda c: 0.80 + 0.15 * c, lambda c: 0.949 + 0 * c, lambda c: 0.7 + 0.28 * c])
def test_a_false_certificate_is_given_no_more_often_than_delta(precision_at: object) -> None:
    """Against draws from a population whose precision above each threshold is known by integration."""
    draw, false, total = np.random.default_rng(0), 0, 1000
    grid = np.linspace(0.5, 1, 5001)
    truth = np.array([precision_at(grid[grid >= low]).mean() for low in grid])  # type: ignore[operator]
    for _ in range(total):
        confidence = draw.uniform(0.5, 1, size=250)
        right = draw.uniform(size=250) < precision_at(confidence)  # type: ignore[operator]
        (claim,) = certify(audited(confidence, right), 2, 0.95, 0.05, 0.5).claims
        if claim.threshold is not None:
            false += truth[np.searchsorted(grid, claim.threshold)] < 0.95
    assert binomtest(false, total, 0.05, alternative="greater").pvalue > 0.001


def test_labels_are_bought_for_the_whole_pool_though_only_candidates_count() -> None:
    assert to_be_bought(59, 300, 1000) == 197
    assert to_be_bought(1, 0, 1000) is None


def test_the_audit_is_one_image_of_each_of_groups_drawn_at_random_and_its_front_is_a_smaller_one() -> None:
    groups = np.repeat([f"g{row}" for row in range(40)], np.arange(40) % 5 + 1)
    whole = draw_audit(groups, 100, 3)
    assert len(whole) == 40
    assert len(set(groups[whole])) == 40
    np.testing.assert_array_equal(draw_audit(groups, 7, 3), whole[:7])
    counts = np.zeros(len(groups))
    for seed in range(4000):
        counts[draw_audit(groups, 10, seed)] += 1
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    expected = 1000 / size[group]
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_a_group_counts_once_in_the_share() -> None:
    groups = np.array(["a", "a", "a", "b"])
    weight = group_share(np.array([True, True, False, True]), groups)
    np.testing.assert_allclose(weight, [1 / 3, 1 / 3, 0, 1])


RULE = PseudoLabelConfig(min_confidence=0.6, max_anomaly=1.0, neighbours=5)


def far_apart(count: int) -> Known:
    """Rows of a pool of two classes far apart, each a group of its own."""
    like = new_known(n=count, seed=7, gap=3.0, per_group=1)
    return replace(like, groups=np.array([f"a{row:04d}" for row in range(count)], dtype=object))


def test_without_an_audit_nothing_is_promoted_and_the_missing_labels_are_counted() -> None:
    known, pool = new_known(gap=3.0), new_pool(n=200, gap=3.0)
    tuned = tune_head(known, 2, 5, 0)
    proposal = propose(tuned, known, pool, 2, RULE)
    nobody = far_apart(4).take(NONE)
    promotion = decide(tuned, known, nobody, proposal, pool, RULE)
    share = len(np.unique(pool.groups[proposal.accepted])) / 200
    assert (promotion.status, promotion.thresholds) == ("refused", None)
    assert promotion.missing_labels == int(np.ceil(59 / share))
    assert f"label about {promotion.missing_labels} more" in promotion.reason
    forced = decide(tuned, known, nobody, proposal, pool, RULE.model_copy(update={"uncertified": True}))
    assert (forced.status, forced.thresholds) == ("uncertified", (0.6, 0.6))


def test_an_audit_certifies_what_is_right_and_refuses_what_is_not() -> None:
    known, pool = new_known(gap=3.0), new_pool(n=200, gap=3.0)
    tuned = tune_head(known, 2, 5, 0)
    proposal = propose(tuned, known, pool, 2, RULE)
    audit = far_apart(100)
    promotion = decide(tuned, known, audit, proposal, pool, RULE)
    assert promotion.status == "certified"
    assert proposal.above(np.array(promotion.thresholds)).sum() > 100
    liar = replace(audit, labels=np.where(np.arange(100) % 4 == 0, 1 - audit.labels, audit.labels))
    assert decide(tuned, known, liar, proposal, pool, RULE).status == "refused"


def test_of_a_group_only_the_first_image_audits() -> None:
    known, pool = new_known(gap=3.0), new_pool(n=200, gap=3.0)
    tuned = tune_head(known, 2, 5, 0)
    proposal = propose(tuned, known, pool, 2, RULE)
    twins = far_apart(100)
    twins = replace(twins, groups=np.repeat(twins.groups[:50], 2))
    promotion = decide(tuned, known, twins, proposal, pool, RULE)
    assert promotion.certificate.audited == 50
    assert promotion.status == "refused"
