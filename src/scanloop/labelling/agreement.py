"""How far readers agree beyond chance: kappas of readings that were given blind, before anybody decided."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from scanloop.labelling.double_reading import BAD_IMAGE, UNSURE
from scanloop.labelling.schema import Reader, Reading
from scanloop.labelling.settling import standing
from scanloop.labelling.store import Store


@dataclass(frozen=True)
class ReaderCounts:
    """What one reader did.

    Attributes:
        name: Who.
        readings: Answers that stand.
        unsure: Of these, without a label as the reader was unsure.
        bad_image: Of these, without a label as the image was bad.
        withdrawn: Answers that were taken back.
        read_with_others: Answers that stand on images that others read too.
        agreed: Of these, those where all gave the same answer.
    """

    name: str
    readings: int
    unsure: int
    bad_image: int
    withdrawn: int
    read_with_others: int
    agreed: int


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the images that both read: how many, the share of equal answers, and Cohen's kappa."""

    readers: tuple[str, str]
    images: int
    share: float
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """All readers, each two who share images, and Fleiss' kappa over the images that several read."""

    readers: tuple[ReaderCounts, ...]
    pairs: tuple[PairAgreement, ...]
    images: int
    fleiss: float | None


def measure_agreement(store: Store) -> Agreement:
    """Agreement of the readings that stand; "unsure" and "bad image" count as answers."""
    with store.reading() as session:
        names = {row.id: row.name for row in session.execute(select(Reader.id, Reader.name).order_by(Reader.name))}
        answers: dict[int, dict[int, str]] = defaultdict(dict)
        for row in session.execute(standing().order_by(Reading.id)):
            answers[row.task_id][row.reader_id] = str(row.answer)
        counted = select(Reading.reader_id, func.count()).where(Reading.withdraws.is_not(None))
        withdrawn = dict(session.execute(counted.group_by(Reading.reader_id)).tuples().all())
    shared = [by_reader for by_reader in answers.values() if len(by_reader) > 1]
    counts = tuple(_counts(who, name, answers, withdrawn.get(who, 0)) for who, name in names.items())
    return Agreement(counts, tuple(_pairs(names, shared)), len(shared), _fleiss_of(shared))


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two readers beyond chance, at most 1 (Cohen 1960, doi:10.1177/001316446002000104).

    None where it is not defined: no image, or both gave one and the same answer throughout.
    """
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(list(first), list(second)))


def fleiss_kappa(counts: npt.NDArray[np.int64]) -> float | None:
    """Agreement of several readers beyond chance, at most 1 (Fleiss 1971, doi:10.1037/h0031619).

    Where images have different numbers of readings each image's pairs are averaged, and each reading counts once in
    the shares of the answers; with equal numbers this is Fleiss' own kappa.

    Args:
        counts: (images, answers) readings of each image that gave each answer, at least two an image.

    Returns:
        None where it is not defined: no image, or one and the same answer throughout.
    """
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    readings = counts.sum(axis=1)
    observed = float(((counts * (counts - 1)).sum(axis=1) / (readings * (readings - 1))).mean())
    shares = counts.sum(axis=0) / counts.sum()
    expected = float((shares**2).sum())
    return (observed - expected) / (1 - expected)


def _fleiss_of(shared: Sequence[dict[int, str]]) -> float | None:
    given = sorted({one for by_reader in shared for one in by_reader.values()})
    tallies = [Counter(by_reader.values()) for by_reader in shared]
    return fleiss_kappa(np.array([[tally[one] for one in given] for tally in tallies], dtype=np.int64))


def _pairs(names: dict[int, str], shared: Sequence[dict[int, str]]) -> list[PairAgreement]:
    found = []
    for first, second in combinations(names, 2):
        both = [(by_reader[first], by_reader[second]) for by_reader in shared if {first, second} <= by_reader.keys()]
        if both:
            share = sum(one == other for one, other in both) / len(both)
            kappa = cohen_kappa([one for one, _ in both], [other for _, other in both])
            found.append(PairAgreement((names[first], names[second]), len(both), share, kappa))
    return found


def _counts(who: int, name: str, answers: dict[int, dict[int, str]], withdrawn: int) -> ReaderCounts:
    mine = [by_reader for by_reader in answers.values() if who in by_reader]
    given = Counter(by_reader[who] for by_reader in mine)
    with_others = [by_reader for by_reader in mine if len(by_reader) > 1]
    agreed = sum(len({*by_reader.values()}) == 1 for by_reader in with_others)
    return ReaderCounts(name, len(mine), given[UNSURE], given[BAD_IMAGE], withdrawn, len(with_others), agreed)
