"""Vectors on disk, a shard at a time: the same as all at once, and a missing one is told."""

import numpy as np
import pytest
from chain import Chain

from scanloop.embedding.blocks import blocks, in_order, workers
from scanloop.embedding.cache import read_embeddings, stored_vectors
from scanloop.errors import ArtifactError
from scanloop.triage.projection import fit_projection


def test_shards_give_the_vectors_of_any_slices_at_their_places_as_often_as_asked(chain: Chain) -> None:
    whole = read_embeddings(chain["embeddings"])
    asked = np.random.default_rng(0).permutation(whole.slice_ids)[:70].tolist()
    stored = stored_vectors(chain["embeddings"], asked)
    assert len(stored.parts) > 1, "one shard proves nothing"
    for _ in range(2):
        gathered = np.full((70, stored.dimension), np.nan, dtype=np.float16)
        for places, vectors in stored:
            gathered[places] = vectors
        np.testing.assert_array_equal(gathered, whole.of(asked))


def test_a_slice_without_a_vector_and_a_lost_shard_are_refused(chain: Chain) -> None:
    with pytest.raises(ArtifactError, match="slice nobody has no embedding; run embed again"):
        stored_vectors(chain["embeddings"], ["nobody"])
    stored = stored_vectors(chain["embeddings"])
    stored.parts[0] = (stored.parts[0][0].with_name("lost"), *stored.parts[0][1:])
    with pytest.raises(ArtifactError, match="missing or broken; run embed again"):
        list(stored)


def test_no_slices_asked_for_are_no_parts(chain: Chain) -> None:
    assert list(stored_vectors(chain["embeddings"], [])) == []


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_components_of_parts_are_those_of_the_whole_far_from_zero_too(offset: float) -> None:
    values = np.random.default_rng(0).normal(size=(500, 12)) * np.linspace(3, 0.1, 12) + offset
    parts = [values[:1], values[1:1], values[1:300], values[300:]]
    ours, whole = fit_projection(iter(parts), 0.95), np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(ours.mean, values.mean(axis=0), atol=1e-9)
    shares = whole.S**2 / (whole.S**2).sum()
    np.testing.assert_allclose(ours.explained, shares[: len(ours.explained)], atol=1e-9)
    angles = np.abs((ours.components * whole.Vh[: len(ours.components)]).sum(axis=1))
    np.testing.assert_allclose(angles, 1, atol=1e-9)
    assert (ours.components[np.arange(len(angles)), np.abs(ours.components).argmax(axis=1)] > 0).all()


def test_blocks_come_in_order_and_few_are_under_way() -> None:
    asked: list[int] = []
    with workers() as pool:
        given = in_order(pool, lambda item: item * 2, (asked.append(item) or item for item in range(1000)))
        assert [next(given) for _ in range(3)] == [0, 2, 4]
        assert len(asked) < 1000
        assert list(given) == list(range(6, 2000, 2))
    assert [rows.stop - rows.start for rows in blocks(10, 4)] == [4, 4, 2]


def test_a_fault_in_a_block_is_raised() -> None:
    with workers() as pool, pytest.raises(ZeroDivisionError):
        list(in_order(pool, lambda item: 1 / item, [1, 0]))
