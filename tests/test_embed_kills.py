"""Embedding survives `kill -9` at any instant, and two tasks at the same shards: the same bytes, each slice once.

SCANLOOP_KILLS=500 kills that often instead of 50.
"""

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import PLANS, Chain
from embed_worker import Work
from test_embed import contents

from scanloop.artifacts import read_table
from scanloop.config import EmbedConfig
from scanloop.embedding.cache import read_embeddings
from scanloop.embedding.ranges import part_of, shards_of
from scanloop.steps.embed_part import STORE
from scanloop.steps.ingest import ingest

KILLS = int(os.environ.get("SCANLOOP_KILLS", "50"))
SEED = 20261121
LIMIT_SECONDS = 120.0
SHARDS = 30
CONFIG = EmbedConfig(batch_size=4)


@pytest.fixture(scope="module")
def undisturbed(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, float]:
    """A run that nobody kills, over 30 shards of 4 slices, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ingest(PLANS["catalog"][1].model_copy(update={"shard_slices": 4}), output=folder / "catalog")
    work = Work(CONFIG, folder / "catalog", chain["encoder"], folder / "warm")
    work.start().join(LIMIT_SECONDS)  # the first start also starts the server that processes are forked from
    work = Work(CONFIG, folder / "catalog", chain["encoder"], folder)
    started = time.monotonic()
    process = work.start()
    process.join(LIMIT_SECONDS)
    assert process.exitcode == 0
    return work, time.monotonic() - started


def assert_equal(run: Path, work: Work) -> None:
    """The run's artifact holds the undisturbed one's bytes, and each slice of the catalog once."""
    assert contents(run / "embeddings") == contents(work.run / "embeddings")
    index, manifest = read_table(run / "embeddings", "index.parquet"), read_table(work.catalog, "manifest")
    assert index["slice_id"].is_unique
    assert index["slice_id"].tolist() == manifest["slice_id"].tolist()
    assert len(read_embeddings(run / "embeddings").vectors) == len(manifest)


def committed(run: Path) -> list[Path]:
    """Shards that stand in the run's store."""
    return list((run / STORE).rglob("*.safetensors"))


def wait_for_a_further_shard(process: Any, run: Path) -> None:
    """Return when a shard more than now stands in the run's store, or the process has ended."""
    before, given_up = len(committed(run)), time.monotonic() + LIMIT_SECONDS
    while process.exitcode is None and len(committed(run)) <= before and time.monotonic() < given_up:
        time.sleep(0.001)


def test_killed_at_any_instant_embed_goes_on_where_it_stood_and_ends_in_the_same_bytes(
    undisturbed: tuple[Work, float], tmp_path: Path
) -> None:
    work, seconds = undisturbed
    instants, kills, finished, between = random.Random(SEED), 0, 0, 0
    while kills < KILLS:
        run = tmp_path / f"run-{finished}"
        process = Work(CONFIG, work.catalog, work.encoder, run).start()
        if kills % 2:  # at any instant of the run, most of which is its start; or at one while it commits shards
            process.join(instants.uniform(0, 1.1 * seconds))
        else:
            wait_for_a_further_shard(process, run)
            process.join(instants.uniform(0, 0.02))
        if process.exitcode is None:
            process.kill()  # not os.kill: the run may have ended since
            process.join()
        assert process.exitcode in {0, -signal.SIGKILL}
        killed = process.exitcode == -signal.SIGKILL
        kills += killed
        between += killed and 0 < len(committed(run)) < SHARDS
        if process.exitcode == 0:
            assert_equal(run, work)
            finished += 1
    print(f"{kills} kills of runs of {seconds:.2f} s, seed {SEED}, {between} between shards; {finished} ended")
    last = Work(CONFIG, work.catalog, work.encoder, run).start()
    last.join(LIMIT_SECONDS)
    assert last.exitcode == 0
    assert_equal(run, work)
    assert between >= kills // 4, (
        "kills come between commits of shards too, not only before the first or after the last"
    )


@pytest.mark.parametrize("killed", [False, True], ids=["none killed", "one killed"])
def test_tasks_at_overlapping_ranges_lose_no_shard_and_end_in_the_same_bytes(
    killed: bool, undisturbed: tuple[Work, float], tmp_path: Path
) -> None:
    work, _ = undisturbed
    parts = ["1/2", "2/3", "2/2", "1/2"]
    processes = [Work(CONFIG, work.catalog, work.encoder, tmp_path, part).start() for part in parts]
    if killed:
        wait_for_a_further_shard(processes[0], tmp_path)
        processes[0].kill()  # at the first shard of any: most of its own are still to do, however slow the machine
    for process in processes:
        process.join(LIMIT_SECONDS)
    assert [process.exitcode for process in processes[1:]] == [0, 0, 0]
    assert processes[0].exitcode == (-signal.SIGKILL if killed else 0)
    made = {path.name: path.stat().st_mtime_ns for path in committed(tmp_path)}
    assert len(made) == SHARDS
    last = Work(CONFIG, work.catalog, work.encoder, tmp_path).start()
    last.join(LIMIT_SECONDS)
    assert last.exitcode == 0
    assert_equal(tmp_path, work)
    found = {path.name: path.stat().st_mtime_ns for path in committed(tmp_path)}
    assert found == made, "what the parts made is not made again"


def test_the_parts_are_ranges_that_together_hold_each_shard_once(undisturbed: tuple[Work, float]) -> None:
    names = [shard.name for shard in shards_of(undisturbed[0].catalog)]
    for parts in (1, 2, 7, 30, 31):
        cut = [part_of(names, f"{number + 1}/{parts}") for number in range(parts)]
        assert list(itertools.chain(*cut)) == names
        assert np.ptp([len(one) for one in cut]) <= 1
