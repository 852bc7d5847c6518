"""Whether an image's origin can be read from its embedding, and whether the labels go along with it.

A site or scanner that the embedding tells, and whose patients have other labels, is what a classifier learns in place
of the disease (Zech et al. 2018, doi:10.1371/journal.pmed.1002683).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanloop.evaluation.intervals import Resampling, bootstrap_interval
from scanloop.learning.cross_validation import group_folds
from scanloop.learning.heads import fit_head
from scanloop.types import Float, Groups, Half, Interval, Labels

LEAST_GROUPS = 20
"""Groups that a value needs to be probed for; rarer values are left out."""

MOST_SLICES, PERMUTATIONS, FOLDS, C = 5000, 1000, 5, 1e-2
COLUMNS = ("site", "modality")
"""Columns of the manifest that tell an origin; attributes of the catalog are probed too."""


@dataclass(frozen=True)
class Reading:
    """How well one attribute can be read from the embedding.

    Attributes:
        name: Of the attribute.
        values: Groups of each value.
        accuracy: Balanced accuracy out of fold, 0..1, with its interval by group.
        chance: 95th percentile of it under values that are shuffled among groups.
        permutations: Shuffles behind it.
        readable: Whether the interval lies above chance.
        association: Cramér's V of attribute and label, 0..1, with its interval by group; None with too few labels.
        verdict: What follows, in words.
    """

    name: str
    values: Mapping[str, int]
    accuracy: Interval
    chance: float
    permutations: int
    readable: bool
    association: Interval | None
    verdict: str


def origins(manifest: pd.DataFrame, attributes: pd.DataFrame | None) -> dict[str, pd.Series]:
    """Attributes that can be probed: by name, the value of each row of the manifest, None where it is rare or unknown.

    Args:
        manifest: Rows to probe.
        attributes: `attributes.parquet`; None where the catalog has none.
    """
    columns = {name: manifest[name] for name in COLUMNS}
    if attributes is not None:
        for name, rows in attributes.groupby("name"):
            if str(name) not in columns:
                value = rows.drop_duplicates("slice_id").set_index("slice_id")["value"]
                columns[str(name)] = manifest["slice_id"].map(value)
    found = {}
    for name, column in columns.items():
        known = column.notna()
        sizes = manifest["group_id"][known].groupby(column[known].astype(str)).nunique()
        frequent = set(sizes.index[sizes >= LEAST_GROUPS])
        if len(frequent) >= 2:
            text = column.astype(str).astype(object)
            found[name] = text.where(known & text.isin(frequent), None)
    return found


def draw(values: pd.Series, seed: int) -> Labels:
    """Rows to probe: those with a value, at most `MOST_SLICES`, as many of each value as there are."""
    known = np.flatnonzero(values.notna())
    if len(known) <= MOST_SLICES:
        return known
    names = values.iloc[known].astype(str)
    each = MOST_SLICES // names.nunique()
    chosen = [part.sample(min(len(part), each), random_state=seed).index for _, part in names.groupby(names)]
    return np.flatnonzero(values.index.isin(np.concatenate(chosen)))


def probe(name: str, vectors: Half | Float, values: Groups, groups: Groups, labels: Groups, seed: int) -> Reading:
    """Predict an attribute from embeddings by logistic regression, each group by a probe that never saw it.

    Args:
        name: Of the attribute.
        vectors: (n, d).
        values: (n,) the attribute, text; each value in `LEAST_GROUPS` groups at least.
        groups: (n,).
        labels: (n,) label or None, for the association.
        seed: Of folds, resamples and shuffles.
    """
    codes, names = pd.factorize(values, sort=True)
    codes = codes.astype(np.int64)
    predicted = np.empty(len(codes), dtype=np.int64)
    for cut in group_folds(codes, groups, FOLDS, 1, seed):
        head = fit_head(vectors[cut.train], codes[cut.train], len(names), C, _balanced(codes[cut.train]))
        predicted[cut.test] = head.logits(vectors[cut.test]).argmax(axis=1)
    hit = (predicted == codes).astype(np.float64)
    member = (codes[:, None] == np.arange(len(names))).astype(np.float64)
    plan = Resampling(seed=seed)
    accuracy = bootstrap_interval(lambda weights: _balanced_accuracy(weights, hit, member), groups, plan)
    chance = float(np.quantile(_shuffled(codes, predicted, groups, seed), 0.95))
    readable = bool(accuracy.low > chance)
    association = _association(codes, labels, groups, plan)
    sizes = {str(value): len(np.unique(groups[codes == code])) for code, value in enumerate(names)}
    verdict = _verdict(name, accuracy, chance, len(names), readable, association)
    return Reading(name, sizes, accuracy, chance, PERMUTATIONS, readable, association, verdict)


def _balanced(codes: Labels) -> Float:
    sizes = np.bincount(codes)
    weights: Float = len(codes) / (np.count_nonzero(sizes) * sizes[codes])
    return weights


def _balanced_accuracy(weights: Float, hit: Float, member: Float) -> Float:
    """Mean recall of each resample, (resamples,); NaN where a value was not drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recall: Float = ((weights * hit) @ member) / (weights @ member)
    mean: Float = recall.mean(axis=1)
    return mean


def _shuffled(codes: Labels, predicted: Labels, groups: Groups, seed: int) -> Float:
    """Balanced accuracy of the same predictions when the values are shuffled among groups, (permutations,).

    A group's value is its first; groups keep their sizes and their predictions.
    """
    generator = np.random.default_rng(seed)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    of_group, classes = codes[first], int(codes.max()) + 1
    scores = np.empty(PERMUTATIONS)
    for number in range(PERMUTATIONS):
        truth = generator.permutation(of_group)[member]
        hits = np.bincount(truth[truth == predicted], minlength=classes)
        scores[number] = (hits / np.maximum(np.bincount(truth, minlength=classes), 1)).mean()
    return scores


def _association(codes: Labels, labels: Groups, groups: Groups, plan: Resampling) -> Interval | None:
    """Cramér's V of attribute and label where both are known; None where either has one value."""
    known = pd.notna(labels)
    _, sites = np.unique(codes[known], return_inverse=True)
    _, classes = np.unique(labels[known].astype(str), return_inverse=True)
    if not known.any() or sites.max() == 0 or classes.max() == 0:
        return None
    cells = np.zeros((len(sites), (sites.max() + 1) * (classes.max() + 1)))
    cells[np.arange(len(sites)), sites * (classes.max() + 1) + classes] = 1.0
    shape = (int(sites.max()) + 1, int(classes.max()) + 1)
    return bootstrap_interval(lambda weights: cramers_v((weights @ cells).reshape(-1, *shape)), groups[known], plan)


def cramers_v(tables: Float) -> Float:
    """Cramér's V (n,) of tables of counts (n, rows, columns), 0..1, without the bias that small samples give it.

    Bergsma 2013 (doi:10.1016/j.jkss.2012.10.002). NaN where a row or a column is empty.
    """
    n = tables.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None] / n[:, None, None]
        phi = ((tables - expected) ** 2 / expected).sum(axis=(1, 2)) / n
    rows, columns = tables.shape[1:]
    corrected = np.maximum(phi - (rows - 1) * (columns - 1) / (n - 1), 0)
    least = np.minimum(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    value: Float = np.sqrt(np.minimum(corrected / least, 1))
    return value


def _verdict(
    name: str, accuracy: Interval, chance: float, values: int, readable: bool, association: Interval | None
) -> str:
    can = "can be read" if readable else "cannot be told from chance"
    words = (
        f"{name} {can} from the embedding: balanced accuracy {accuracy.value:.2f} [{accuracy.low:.2f}, "
        f"{accuracy.high:.2f}], n={accuracy.n} ({accuracy.groups} groups), chance {1 / values:.2f}, shuffled values "
        f"stay below {chance:.2f} in 95 of 100"
    )
    if association is None:
        return words
    words += (
        f"; its association with the label is V={association.value:.2f} [{association.low:.2f}, {association.high:.2f}]"
    )
    risk = readable and association.low > 0
    return words + (": a classifier may learn it in place of the disease" if risk else "")
