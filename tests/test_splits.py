from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from split_files import split_names

from scanloop.archive.splits import SPLITS, assert_no_leakage, group_ids
from scanloop.errors import LeakageError

rows = st.integers(1, 60).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 15), min_size=count, max_size=count),
        st.lists(st.sampled_from(["cancer", "normal", None]), min_size=count, max_size=count),
        st.lists(st.sampled_from([*SPLITS, None, None, None]), min_size=count, max_size=count),
        st.permutations(range(count)),
    )
)


def split(groups: object, labels: object, given_splits: object, **changes: float) -> np.ndarray:
    options: dict = {"validation_share": 0.2, "test_share": 0.3, "seed": 0} | changes
    return split_names(np.array(groups, np.uint64), labels, given_splits, **options)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_the_connected_components_of_the_links(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, links = graph
    groups = group_ids(np.arange(count, dtype=np.uint64), np.array(links, dtype=np.int64).reshape(-1, 2))
    left, right = (np.array([link[side] for link in links], dtype=int) for side in (0, 1))
    expected = connected_components(
        coo_array((np.ones(len(links)), (left, right)), shape=(count, count)), directed=False
    )[1]
    assert [groups[row] == groups[0] for row in range(count)] == [expected[row] == expected[0] for row in range(count)]
    assert len(set(groups)) == len(set(expected.tolist()))


def test_a_group_is_named_after_its_least_slice() -> None:
    ids = np.array([2**64 - 1, 5, 7], dtype=np.uint64)
    assert group_ids(ids, np.array([[0, 1]])).tolist() == [5, 5, 7]
    assert group_ids(ids, np.empty((0, 2), np.int64)).tolist() == ids.tolist()


@given(rows)
def test_a_group_never_crosses_a_split(drawn: tuple) -> None:
    groups, labels, given_splits, _ = drawn
    table = pd.DataFrame({"group": groups, "split": split(groups, labels, given_splits)})
    assert table.groupby("group")["split"].nunique().max() == 1


@given(rows)
def test_permuting_the_rows_permutes_the_splits(drawn: tuple) -> None:
    groups, labels, given_splits, order = drawn
    straight = split(groups, labels, given_splits)
    shuffled = split(*([column[row] for row in order] for column in (groups, labels, given_splits)))
    assert shuffled.tolist() == straight[list(order)].tolist()


@given(rows)
def test_the_most_held_out_split_that_a_source_gives_takes_the_whole_group(drawn: tuple) -> None:
    groups, labels, given_splits, _ = drawn
    for group, label, own, got in zip(groups, labels, given_splits, split(groups, labels, given_splits), strict=True):
        ranks = [SPLITS.index(one) for one, other in zip(given_splits, groups, strict=True) if other == group and one]
        if ranks:
            assert got == SPLITS[max(ranks)]
        elif label is None and all(other is None for other, peer in zip(labels, groups, strict=True) if peer == group):
            assert got == "train", own


def test_shares_are_kept_class_by_class_and_only_labelled_groups_are_held_out() -> None:
    labels = ["cancer"] * 100 + ["normal"] * 40 + [None] * 500
    got = split(list(range(640)), labels, [None] * 640)
    assert Counter(got[:100]) == {"test": 30, "validation": 20, "train": 50}
    assert Counter(got[100:140]) == {"test": 12, "validation": 8, "train": 20}
    assert set(got[140:]) == {"train"}
    other = split(list(range(640)), labels, [None] * 640, seed=1)
    assert Counter(other) == Counter(got)
    assert other.tolist() != got.tolist()


def test_an_unlabelled_slice_leaves_the_pool_with_its_group() -> None:
    groups = [row // 2 for row in range(200)]
    labels = ["cancer" if row % 2 == 0 else None for row in range(200)]
    got = split(groups, labels, [None] * 200)
    assert Counter(got) == {"test": 60, "validation": 40, "train": 100}
    assert all(got[row] == got[row + 1] for row in range(0, 200, 2))


def test_no_share_holds_nothing_out_and_train_keeps_a_group_of_each_class() -> None:
    labels = ["cancer", "normal", "normal", "normal"]
    assert set(split(range(4), labels, [None] * 4, validation_share=0, test_share=0)) == {"train"}
    got = split(range(4), labels, [None] * 4, validation_share=0.5, test_share=0.5)
    assert got[0] == "train"
    assert "train" in got[1:]


def manifest(**columns: list) -> pd.DataFrame:
    plain = {
        "slice_id": ["a", "b", "c"],
        "group_id": ["g1", "g1", "g2"],
        "patient_id": [None, None, None],
        "site": [None, None, None],
        "split": ["train", "train", "test"],
    }
    return pd.DataFrame(plain | columns, dtype=object)


def test_leakage_is_named() -> None:
    assert_no_leakage(manifest())
    with pytest.raises(LeakageError, match=r"group g1 crosses splits \(test, train\)"):
        assert_no_leakage(manifest(split=["train", "test", "test"]))
    with pytest.raises(LeakageError, match="patient p7 crosses splits"):
        assert_no_leakage(manifest(patient_id=["p7", None, "p7"]))
    with pytest.raises(LeakageError, match="slice a stands 2 times"):
        assert_no_leakage(manifest(slice_id=["a", "b", "a"], split=["train"] * 3))


def test_patients_of_two_sites_may_share_a_number() -> None:
    assert_no_leakage(manifest(patient_id=["1", None, "1"], site=["paris", None, "lyon"]))
