"""Publishing: once for each queue, nothing read is asked for again, money in whole cents, seeded policies."""

import itertools
from decimal import Decimal
from pathlib import Path

import pytest
from label_stores import Clock, enrol, publish_images, read_one, slice_ids, take, write_catalog, write_queue
from sqlalchemy import select

from scanloop.artifacts import read_json, read_table
from scanloop.errors import ArtifactError, LabellingError
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.progress import Progress, progress
from scanloop.labelling.readers import add_reader
from scanloop.labelling.reading import LeaseError, answer, withdraw
from scanloop.labelling.schema import Task, Wave
from scanloop.labelling.store import Store
from scanloop.labelling.waves import Published, cents, publish


def test_a_queue_is_published_once(store: Store, tmp_path: Path) -> None:
    assert publish_images(store, tmp_path, 5, price=0.55, budget=10.0) == Published(1, 5, 0, is_new=True)
    assert publish_images(store, tmp_path, 5) == Published(1, 5, 0, is_new=False)
    with store.reading() as session:
        wave = session.scalars(select(Wave)).one()
        assert (wave.price_cents, wave.budget_cents, wave.classes) == (55, 1000, ["normal", "pneumonia"])
        assert session.scalars(select(Task.slice_id).order_by(Task.rank)).all() == slice_ids(5)


def test_the_next_wave_closes_the_last_and_leaves_out_what_is_read_or_in_hands(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    publish_images(store, tmp_path, 4, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    read_one(store, "anna", "bad image")
    gone = read_one(store, "anna", "normal")
    withdraw(store, "anna", gone.task)
    clock.move(hours=1)
    held = take(store, "ben", beside=[take(store, "ben").task])
    assert [held.slice_id, gone.slice_id] == [slice_ids(2)[1]] * 2
    assert publish_images(store, tmp_path, 4, key="key-2") == Published(2, 2, 2, is_new=True)
    answer(store, "ben", held.task, "normal", held.token)
    assert take(store, "anna").slice_id == slice_ids(4)[2]


def test_a_queue_of_the_acquire_step_is_taken_as_it_is(store: Store, chain: object) -> None:
    queue, catalog = chain["queue"], chain["catalog"]  # type: ignore[index]
    rows = read_table(queue, "queue.parquet")
    assert publish(store, queue, catalog).tasks == len(rows) > 0
    with store.reading() as session:
        assert session.scalars(select(Task.slice_id).order_by(Task.rank)).all() == rows["slice_id"].tolist()
        assert session.scalars(select(Wave.classes)).one() == read_json(catalog / "catalog.json")["classes"]


def test_what_cannot_be_published_is_refused_with_the_reason_and_leaves_no_wave(store: Store, tmp_path: Path) -> None:
    catalog, queue = write_catalog(tmp_path), write_queue(tmp_path, slice_ids(2))
    mixed = write_queue(tmp_path, slice_ids(2), key="mixed")
    write_queue(tmp_path / "other", slice_ids(2), key="mixed", price=0.6)
    (mixed / "queue.json").write_bytes((tmp_path / "other" / "queue-mixed" / "queue.json").read_bytes())
    refusals = [
        (ArtifactError, "several prices", lambda: publish(store, mixed, catalog)),
        (ArtifactError, "no such queue", lambda: publish(store, tmp_path / "none", catalog)),
        (LabellingError, "whole number of cents", lambda: publish_images(store, tmp_path, 2, key="k", price=0.555)),
        (
            LabellingError,
            "needs the model's labels",
            lambda: publish(store, queue, catalog, policy=DoubleReading("disagreement")),
        ),
        (LabellingError, "none of", lambda: publish(store, queue, catalog, model_labels={"slice-00001": "cat"})),
        (LabellingError, "rename it", lambda: publish(store, queue, write_catalog(tmp_path / "c", ["unsure", "sure"]))),
        (LabellingError, "whole number of cents", lambda: publish(store, queue, catalog, budget_eur=Decimal("NaN"))),
    ]
    for error, message, refused in refusals:
        with pytest.raises(error, match=message):
            refused()
    with store.reading() as session:
        assert session.scalars(select(Wave)).all() == []
    publish(store, queue, catalog, budget_eur=Decimal(1))
    with pytest.raises(LabellingError, match="store of its own"):
        publish(store, write_queue(tmp_path, slice_ids(2), key="k2"), write_catalog(tmp_path / "c", ["cat", "dog"]))


def test_progress_counts_images_money_and_pace(store: Store, tmp_path: Path, clock: Clock) -> None:
    assert progress(store, "anna") is None
    publish_images(store, tmp_path, 5, budget=10.0, policy=DoubleReading("all"))
    enrol(store, "anna", "ben")
    for given in ("normal", "normal", "normal"):
        read_one(store, "anna", given)
    clock.move(hours=2)
    read_one(store, "ben", "pneumonia")
    read_one(store, "ben", "normal")
    read_one(store, "anna", "normal")
    take(store, "ben")
    assert progress(store, "anna") == Progress(
        wave=1, is_open=True, tasks=5, read=2, begun=2, disputed=1, budget_cents=1000, spent_cents=330, held_cents=55,
        mine=4, my_last_hour=1,
    )  # fmt: skip


def test_cents_are_exact_where_floats_are_not() -> None:
    assert [cents(0.55), cents(0.29), cents(1.15), cents("19.99"), cents(1e5)] == [55, 29, 115, 1999, 10_000_000]
    assert int(0.29 * 100) == 28, "what this guards against"
    for wrong in (-1, float("inf"), 0.001):
        with pytest.raises(LabellingError):
            cents(wrong)


def test_a_share_is_drawn_by_the_images_id_and_the_seed_alone() -> None:
    ids, policy = slice_ids(4000), DoubleReading("share", share=0.25, seed=3)
    drawn = {one for one in ids if policy.at_first(one) == 2}
    assert abs(len(drawn) / 4000 - 0.25) < 0.03
    assert {one for one in reversed(ids[:100]) if policy.at_first(one) == 2} == drawn & {*ids[:100]}
    other = {one for one in ids if DoubleReading("share", share=0.25, seed=4).at_first(one) == 2}
    assert abs(len(drawn & other) / 4000 - 0.0625) < 0.02, "seeds draw independently"
    assert drawn < {one for one in ids if DoubleReading("share", share=0.5, seed=3).at_first(one) == 2}


def test_only_a_class_that_is_not_the_models_asks_for_a_further_reading() -> None:
    policy = DoubleReading("disagreement", readings=3)
    for model, given in itertools.product((None, "a", "b"), ("a", "b", "unsure", "bad image")):
        expected = 3 if model is not None and given in ("a", "b") and given != model else 1
        assert policy.wanted(1, model, [given]) == expected
    for which in ("none", "all", "share"):
        assert DoubleReading(which, readings=3).wanted(2, "a", ["b"]) == 2  # type: ignore[arg-type]


def test_policies_and_readers_out_of_range_are_refused(store: Store) -> None:
    for wrong in ({"which": "some"}, {"readings": 1}, {"readings": 10}, {"share": 1.1}, {"share": float("nan")}):
        with pytest.raises(LabellingError):
            DoubleReading(**wrong)  # type: ignore[arg-type]
    for name, role in (("", "reader"), ("   ", "reader"), ("x" * 201, "reader"), ("a\nb", "reader"), ("anna", "king")):
        with pytest.raises(LabellingError):
            add_reader(store, name, role)
    number = add_reader(store, "anna")
    assert add_reader(store, "anna", "adjudicator") == add_reader(store, "anna", "adjudicator") == number
    with pytest.raises(LeaseError):
        withdraw(store, "anna", 1)
