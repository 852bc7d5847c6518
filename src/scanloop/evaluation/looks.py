"""What a hold-out may still prove: each model that it judges uses up some of it.

Whoever tries often enough passes by luck. The error rate that a gate allows itself is therefore shared out among the
looks at one hold-out: look k gets alpha / (k (k + 1)). The shares of all looks sum to less than alpha, however many
there are (alpha spending, Lan and DeMets 1983, doi:10.1093/biomet/70.3.659), and the first looks, which are most, get
most of it; Bonferroni would ask as much of the first look as of the last.

That bounds the chance that any of the models is promoted by luck where none was made with what earlier looks said.
Those who choose the next model by the last figures learn from the hold-out (Dwork et al. 2015,
doi:10.1126/science.aaa9375; Blum and Hardt 2015, arXiv:1502.04585); no correction of this size undoes it, so looks are
bounded as well.
"""


def tail_at(look: int, confidence: float) -> float:
    """One-sided error rate that the bounds of look number `look`, from 1, may have.

    >>> [round(tail_at(look, 0.95), 6) for look in (1, 2, 3)]
    [0.0125, 0.004167, 0.002083]
    >>> sum(tail_at(look, 0.95) for look in range(1, 1000)) < 0.025
    True
    """
    return (1 - confidence) / 2 / (look * (look + 1))
