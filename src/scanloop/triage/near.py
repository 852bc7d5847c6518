"""Near-duplicates in embedding space: pool images so near to a held-out or labelled one that they leave the pool.

The perceptual hash of ingest finds copies that look the same pixel by pixel; a crop or another window passes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import beta

from scanloop.embedding.blocks import blocks, in_order, workers
from scanloop.types import Float, Groups, Half, Labels, Single, Vectors

REASONS = {"held_out": "near a held-out image", "labelled": "near a labelled image"}
"""Why an image leaves the pool, by the kind of image that it is near, the more important first."""

SAMPLED = 4096
"""Slices whose pairs say how near unrelated images are: 8.4 million pairs."""

KNOWN_PAIRS = 2000
"""Known near-duplicates that the threshold is tried on, at most."""


@dataclass(frozen=True)
class Threshold:
    """From which cosine on two images count as near-duplicates, and what that is worth.

    Attributes:
        cosine: Least cosine; above 1 where no pair can reach it.
        rate: Wrongly pushed out share of the unrelated pool images that was asked for, at most.
        references: Held-out and labelled images that each pool image is compared with.
        pairs: Random pairs of images of different groups behind it.
        exceeding: Those of them that reach it.
        expected: Share of unrelated pool images that reach it by the union bound, `references * exceeding / pairs`.
        expected_high: Its upper 95 % bound (Clopper-Pearson on the pairs, which share images).
        known: Pairs that are known to be near-duplicates, from the perceptual hashes inside of groups.
        found: Those of them that reach it.
    """

    cosine: float
    rate: float
    references: int
    pairs: int
    exceeding: int
    expected: float
    expected_high: float
    known: int
    found: int


def unit(vectors: Vectors) -> Single:
    """Rows of unit length, float32 (n, d); a row of zeros stays one."""
    values: Single = vectors.astype(np.float32)
    length: Float | Single = np.linalg.norm(values, axis=1, keepdims=True)
    rows: Single = (values / np.maximum(length, 1e-12)).astype(np.float32)
    return rows


def threshold(sample: Single, groups: Groups, known: Float, references: int, rate: float) -> Threshold:
    """Threshold at which an unrelated pool image is near any reference with at most this probability.

    Random pairs of images of different groups (patients) tell how near unrelated images are. An image is compared with
    all references, so a pair may reach the threshold with `rate / references` at most (union bound); the threshold is
    the least cosine that keeps to it. Near-duplicates that nobody knows of are among the random pairs: they raise the
    threshold, never the rate. Where the pairs are too few to tell such a rate, it lies above them all.

    Args:
        sample: (m, d) unit vectors drawn at random.
        groups: (m,) their groups.
        known: (pairs,) cosines of known near-duplicates.
        references: Images that each pool image is compared with.
        rate: 0..1.
    """
    allowed_share, total = rate / max(references, 1), 0
    most = int(len(sample) ** 2 * allowed_share) + 1
    kept: Single = np.empty(0, dtype=np.float32)
    codes = pd.factorize(groups)[0]

    def unrelated(rows: slice) -> Single:
        other = codes[rows, None] != codes
        other &= np.arange(len(sample)) > np.arange(rows.start, rows.stop)[:, None]
        cosines: Single = (sample[rows] @ sample.T)[other]
        return cosines

    with workers() as pool:
        for cosines in in_order(pool, unrelated, blocks(len(sample), 256)):
            total += len(cosines)
            kept = np.concatenate([kept, cosines])
            if len(kept) > most:
                kept = np.partition(kept, len(kept) - most)[-most:]
    kept = np.sort(kept)[::-1]
    allowed = int(total * allowed_share)
    cosine = float(np.nextafter(kept[allowed], np.float32(2))) if len(kept) > allowed else 2.0
    exceeding = int((kept >= cosine).sum())
    high = float(beta.ppf(0.95, exceeding + 1, max(total - exceeding, 1))) if total else 1.0
    return Threshold(
        cosine,
        rate,
        references,
        total,
        exceeding,
        min(1.0, references * exceeding / max(total, 1)),
        min(1.0, references * high),
        len(known),
        int((known >= cosine).sum()),
    )


def known_pairs(manifest: pd.DataFrame, bits: int, seed: int) -> Labels:
    """Rows of near-duplicates that ingest joined: of one group, and with hashes that differ in few bits.

    Args:
        manifest: Of the catalog.
        bits: Most differing bits.
        seed: Of the draw of groups, where there are many.

    Returns:
        int64 (pairs, 2), at most `KNOWN_PAIRS`, one a group where groups are many.
    """
    telling = np.flatnonzero(manifest["phash"].notna().to_numpy())  # blank slices have no hash
    codes = pd.factorize(manifest["group_id"])[0][telling]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    order = telling[order]
    members = [part for part in np.split(order, starts[1:]) if len(part) > 1]
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(members))[:KNOWN_PAIRS]
    hashes = np.array([int(value or "0", 16) for value in manifest["phash"]], dtype=np.uint64)
    found = []
    for group in (members[index][:32] for index in chosen):
        left, right = np.triu_indices(len(group), 1)
        near = np.bitwise_count(hashes[group[left]] ^ hashes[group[right]]) <= bits
        found.append(np.stack([group[left], group[right]], axis=1)[near])
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return draw.permutation(pairs)[:KNOWN_PAIRS].astype(np.int64)


@dataclass(frozen=True)
class References:
    """Images that the pool must keep its distance from.

    Attributes:
        slice_ids: (r,) ids.
        vectors: (r, d) unit vectors.
        kind: (r,) key of `REASONS`.
    """

    slice_ids: Groups
    vectors: Single
    kind: Groups


def pushed_out(
    parts: Iterable[tuple[Labels, Half]], slice_ids: Sequence[str], references: References, least: float
) -> pd.DataFrame:
    """Pool images that are near a reference: rows of `pushed_out.parquet`, in the order of the pool.

    An image near both a held-out and a labelled one is told as near the held-out one.

    Args:
        parts: Places in the pool and vectors of the pool, shard by shard; memory does not grow with their number.
        slice_ids: Ids of the pool.
        references: Held-out and labelled images.
        least: Cosine from which on an image is near.
    """
    columns = ("slice_id", "near", "cosine", "reason")
    found: dict[int, tuple[str, str, float, str]] = {}

    def nearest(values: Single) -> tuple[Labels, Single]:
        products = values @ base.T
        best = products.argmax(axis=1)
        return best.astype(np.int64), products[np.arange(len(values)), best]

    for kind in reversed(REASONS):
        chosen = np.flatnonzero(references.kind == kind)
        base = references.vectors[chosen]
        if not len(base):
            continue
        with workers() as pool:
            for places, vectors in parts:
                step = max(64, (1 << 22) // len(base))
                cut = [unit(vectors[rows]) for rows in blocks(len(vectors), step)]
                answers = list(in_order(pool, nearest, cut))
                best, cosines = (np.concatenate([answer[side] for answer in answers]) for side in (0, 1))
                for row in np.flatnonzero(cosines >= least):
                    place, near = int(places[row]), str(references.slice_ids[chosen[best[row]]])
                    found[place] = (slice_ids[place], near, float(cosines[row]), REASONS[kind])
    return pd.DataFrame([found[place] for place in sorted(found)], columns=list(columns))
