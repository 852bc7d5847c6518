from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from local_run import ARTIFACTS, TINY, Done, Killed, digests, orphans, run, run_after_kills, stamps

from scanloop.artifacts import KINDS, check_artifact, count_rows, read_table
from scanloop.errors import ArchiveError, ConfigError
from scanloop.tables import TABLES

KILLS, LONGEST_SECONDS = 4, 15.0
MAY_BE_EMPTY = {"quarantine.parquet", "attributes.parquet", "seen.parquet", "pushed_out.parquet"}


@dataclass(frozen=True)
class Loop:
    """A whole run, and one beside it, at the same time, that is killed again and again."""

    config: Path
    folder: Path
    first: Done
    digests: dict[str, str]
    interrupted_folder: Path
    interrupted: Future[Killed]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    home = tmp_path_factory.mktemp("loop")
    config = home / "tiny.yaml"
    config.write_text(TINY)
    with ThreadPoolExecutor(1) as pool:
        interrupted = pool.submit(run_after_kills, config, home / "interrupted", KILLS, LONGEST_SECONDS)
        (home / "temporary").mkdir()
        first = run(config, home / "whole", temporary=home / "temporary")
        yield Loop(config, home / "whole", first, digests(home / "whole"), home / "interrupted", interrupted)


def test_one_command_leaves_every_artifact_whole(loop: Loop) -> None:
    assert loop.first.code == 0, loop.first.text
    for name in ARTIFACTS:
        check_artifact(loop.folder / name, "bundle" if name == "baseline" else name)
    for kind in set(ARTIFACTS) & set(KINDS):
        for table in set(KINDS[kind]) & set(TABLES) - MAY_BE_EMPTY:
            assert count_rows(loop.folder / kind, table), f"{kind}/{table} is empty"
    hidden = {path.name for path in loop.folder.iterdir() if path.name.startswith(".")}
    assert not [name for name in hidden if name.endswith((".partial", ".retired", ".error.json"))]
    assert f"Report: {loop.folder}" in loop.first.text.replace("\n", " ")
    assert list((loop.config.parent / "temporary").iterdir()) == []


def test_both_tables_of_predictions_list_every_uri(loop: Loop) -> None:
    uris = sorted(read_table(loop.folder / "catalog", "sources.parquet")["uri"])
    for kind, table in (("evaluation", "predictions.parquet"), ("pseudo_labels", "pseudo_labels.parquet")):
        frame = read_table(loop.folder / kind, table)
        assert sorted(frame["uri"]) == uris
        assert frame[["probability", "confidence", "label", "reason", "promoted"]].notna().to_numpy().all()


def test_kills_of_the_parent_end_in_the_bytes_of_an_undisturbed_run(loop: Loop) -> None:
    killed = loop.interrupted.result()
    assert killed.kills == KILLS
    assert killed.last.code == 0, killed.last.text
    assert orphans(loop.interrupted_folder, patience_seconds=5) == []
    for found in (*killed.finished, digests(loop.interrupted_folder)):
        assert found == loop.digests


@dataclass(frozen=True)
class Reruns:
    """The same command again, and with one value changed; each in the folder of a whole run, with what stood there."""

    again: Done
    again_before: dict[str, tuple[str, int]]
    changed: Done
    changed_before: dict[str, tuple[str, int]]


@pytest.fixture(scope="module")
def reruns(loop: Loop) -> Reruns:
    loop.interrupted.result()
    before = stamps(loop.folder), stamps(loop.interrupted_folder)
    with ThreadPoolExecutor(1) as pool:
        changed = pool.submit(run, loop.config, loop.interrupted_folder, "--set", "detect_drift.threshold=0.3")
        again = run(loop.config, loop.folder)
        return Reruns(again, before[0], changed.result(), before[1])


def test_the_same_command_again_finds_everything_and_changes_no_byte(loop: Loop, reruns: Reruns) -> None:
    assert reruns.again.code == 0, reruns.again.text
    assert stamps(loop.folder) == reruns.again_before
    assert "every step was found in the cache" in reruns.again.text
    assert reruns.again.text.count("cached") >= len(ARTIFACTS)
    assert reruns.again.seconds < loop.first.seconds / 2


def test_a_changed_value_runs_exactly_the_steps_downstream(loop: Loop, reruns: Reruns) -> None:
    assert reruns.changed.code == 0, reruns.changed.text
    now = stamps(loop.interrupted_folder)
    ran = {name for name in ARTIFACTS if now[f"{name}/run.json"] != reruns.changed_before[f"{name}/run.json"]}
    assert ran == {"drift", "account", "report"}
    others = {name for name in now if name.split("/")[0] not in ran}
    assert {name: now[name] for name in others} == {name: reruns.changed_before[name] for name in others}


@pytest.mark.integration
def test_kills_over_the_length_of_whole_runs_end_in_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    whole = run(config, tmp_path / "whole")
    assert whole.code == 0, whole.text
    killed = run_after_kills(config, tmp_path / "interrupted", 30, whole.seconds)
    assert killed.kills == 30
    assert killed.last.code == 0, killed.last.text
    assert orphans(tmp_path / "interrupted", patience_seconds=5) == []
    for found in (*killed.finished, digests(tmp_path / "interrupted")):
        assert found == digests(tmp_path / "whole")


def test_the_watch_over_a_run_in_another_folder_is_found_again(loop: Loop, tmp_path: Path) -> None:
    options = ("--pipeline", "watch", "--from", str(loop.folder))
    first = run(loop.config, tmp_path / "watch", *options)
    assert first.code == 0, first.text
    assert {path.parent.name for path in (tmp_path / "watch").glob("*/artifact.json")} == {"drift", "account", "report"}
    assert "every step was found in the cache" in run(loop.config, tmp_path / "watch", *options).text


def test_a_second_run_into_a_folder_at_work_is_refused(loop: Loop) -> None:
    with FileLock(loop.folder / ".run.lock"):
        second = run(loop.config, loop.folder)
    assert second.code == 1
    assert f"another run is at work in {loop.folder}" in second.text.replace("\n", " ")


def test_an_empty_folder_as_archive_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = tmp_path / "run.yaml"
    config.write_text(f"ingest: {{source: {{kind: folder, path: {tmp_path / 'empty'}, deidentify: false}}}}\n")
    done = run(config, tmp_path / "run")
    assert done.code == ArchiveError.exit_code, done.text
    errors = [line for line in done.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "ArchiveError (catalog)" in errors[0]
    assert "Traceback" not in done.text
    assert not (tmp_path / "run" / "catalog").exists()


def test_a_config_with_three_mistakes_is_one_error_that_lists_them(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("ingest: {source: {kind: synthetic}}\ntriage: {k_max: two, k: 1}\nembed: {batch_size: 0}\n")
    done = run(config, tmp_path / "run")
    assert done.code == ConfigError.exit_code
    assert done.text.count("error: ") == 1
    for path in ("triage.k_max", "triage.k:", "embed.batch_size"):
        assert path in done.text
    assert not (tmp_path / "run").exists()
