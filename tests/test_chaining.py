"""The largest group and what made it: patients, studies, copies or a chain of near-duplicates."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanloop.archive.chaining import chaining
from scanloop.archive.duplicates import hash_pairs
from scanloop.archive.splits import group_ids


def manifest(
    hashes: list[int | None], patients: list[str | None], studies: list[str | None] | None = None
) -> pd.DataFrame:
    telling = np.array([row for row, value in enumerate(hashes) if value is not None])
    near = telling[hash_pairs(np.array([hashes[row] for row in telling], dtype=np.uint64), 8)]
    same = [[a, b] for a, one in enumerate(patients) for b, other in enumerate(patients) if one and one == other]
    links = np.concatenate([near, np.array(same, dtype=np.int64).reshape(-1, 2)])
    groups = group_ids(np.arange(len(hashes), dtype=np.uint64), links)
    return pd.DataFrame({
        "slice_id": [f"{row:016x}" + "0" * 48 for row in range(len(hashes))],
        "phash": [None if value is None else f"{value:016x}" for value in hashes], "patient_id": patients,
        "study_id": studies or [None] * len(hashes), "site": None, "group_id": [f"{group:016x}" for group in groups],
    }, dtype=object)  # fmt: skip


def sources(table: pd.DataFrame, *again: int) -> pd.DataFrame:
    ids = [*table["slice_id"], *(table["slice_id"][row] for row in again)]
    return pd.DataFrame({"slice_id": ids, "uri": [f"u{row}" for row in range(len(ids))]})


FAR = [0, 2**64 - 1, 0xFFFFFFFF, 0xFFFFFFFF << 32, 0x0F0F0F0F0F0F0F0F, 0x3333333333333333]


def test_each_cause_is_counted_alone_and_the_group_is_what_all_of_them_join() -> None:
    chain = [0b1111 << (4 * step) | ((1 << (4 * step)) - 1) for step in range(4)]  # each 4 bits from the next
    table = manifest([*chain, *FAR[1:]], [None, None, None, "p", "p", "p", None, "q", None], list("aaabbcddd"))
    found = chaining(table, sources(table, 8, 8, 0), 8)
    assert (found.slices, found.near_duplicates) == (6, 4)
    assert found.group == "0" * 16
    assert (found.patients, found.patient, found.study, found.exact_copies) == (1, 3, 3, 3)
    assert found.share == 6 / 9
    warning = found.warning(0.5)
    assert warning is not None
    assert "6 slices, 67% of the archive" in warning
    assert "near-duplicates, 4 slices" in warning
    assert found.warning(0.7) is None


def test_blank_slices_of_one_patient_are_no_chain() -> None:
    found = chaining(table := manifest([None, None, None, *FAR[:2]], ["p", "p", "p", "p", None]), sources(table), 8)
    assert (found.slices, found.near_duplicates) == (4, 1)


def test_an_archive_without_patients_or_copies_has_groups_of_one() -> None:
    table = manifest(FAR, [None] * 6)
    found = chaining(table, sources(table), 8)
    assert (found.slices, found.near_duplicates, found.patient, found.study, found.exact_copies) == (1, 1, 0, 0, 1)
    assert found.warning(0.0) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**10), min_size=2, max_size=30), st.integers(0, 6))
def test_the_longest_chain_is_that_of_a_full_comparison(hashes: list[int], bits: int) -> None:
    ids = [f"{row:016d}" + "0" * 48 for row in range(len(hashes))]
    table = manifest(hashes, ["one"] * len(ids))
    near = np.array([[(one ^ other).bit_count() <= bits for other in hashes] for one in hashes])
    expected = np.bincount(connected_components(coo_array(near), directed=False)[1]).max()
    assert chaining(table, sources(table), bits).near_duplicates == expected
