"""The online store: brought up to date in chunks that survive a kill, looked up by id; nothing leaves the machine."""

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feature_runs import START, ids, iso, write_clusters, write_labels, write_run, write_wave
from label_pages import LABELLED, Site, SiteMaker
from label_stores import CLASSES
from typer.testing import CliRunner

from scanloop.artifacts import read_json, read_table
from scanloop.cli import app
from scanloop.errors import ConfigError
from scanloop.features import materialize as materializing
from scanloop.features.materialize import materialize
from scanloop.features.offline import write
from scanloop.features.online import FIELDS, MOST_IDS, OnlineMetadata
from scanloop.features.repository import SETTINGS, apply, open_repository

SLICES = ids(12)
LATE = START + timedelta(days=30)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast calls nobody: neither for statistics nor for anything else."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"{address} was called")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    apply(tmp_path / "features")
    return tmp_path / "features"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Twelve slices: two given a label, one of them read again, one that readers were unsure of, eight in a wave."""
    run = write_run(tmp_path / "run", SLICES, {SLICES[0]: "normal", SLICES[1]: "lesion"})
    labels = pd.DataFrame({"slice_id": SLICES[1:3], "label": ["normal", None], "as_of": iso(LATE)})
    write_labels(run, labels)
    write_wave(run, SLICES[4:], 3, LATE, LATE)
    return run


def known(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(FIELDS) | {"shard": "shard-000000.tar"} | values


def test_a_lookup_knows_each_slice_in_the_order_of_the_ids_and_none_of_a_stranger(repository: Path, run: Path) -> None:
    write(repository, run)
    materialize(repository)
    found = OnlineMetadata(repository).of([SLICES[5], "stranger", SLICES[2], SLICES[1], SLICES[0], SLICES[5]])
    of_wave = known(row=5, cluster=2, wave=3, pseudo_label="lesion", confidence=pytest.approx(0.8))
    assert found[0] == found[5] == of_wave
    assert found[1] is None
    assert found[2] == known(row=2, cluster=2), "readers were unsure: no label"
    assert found[3] == known(row=1, cluster=1, label="normal", label_source="read")
    assert found[4] == known(row=0, cluster=0, label="normal", label_source="given")
    assert OnlineMetadata(repository).of([]) == []
    with pytest.raises(ValueError, match="at most"):
        OnlineMetadata(repository).of(SLICES * MOST_IDS)


def test_only_what_is_new_is_brought_online(repository: Path, run: Path) -> None:
    write(repository, run)
    assert sum(materialize(repository).values()) == 2 + 12 + 12 + 8 + 2
    assert sum(materialize(repository).values()) == 0
    write_labels(run, pd.DataFrame({"slice_id": SLICES[2:3], "label": "lesion", "as_of": iso(LATE + timedelta(1))}))
    write(repository, run)
    assert materialize(repository) == {"given": 0, "embedding": 0, "cluster": 0, "pseudo_label": 0, "label": 2}
    found = OnlineMetadata(repository).of(SLICES[1:3])
    assert [one["label_source"] for one in found if one] == ["given", "read"], "one was withdrawn, one read again"


def test_a_killed_run_continues_after_its_last_chunk_and_ends_as_an_undisturbed_one(
    repository: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materializing, "CHUNK_ROWS", 5)
    write(repository, run)
    sent: list[int] = []
    opened = open_repository(repository)

    def counted(view: str, frame: pd.DataFrame) -> None:
        if len(sent) == 4:
            raise KeyboardInterrupt
        type(opened).write_to_online_store(opened, view, frame)
        sent.append(len(frame))

    monkeypatch.setattr(opened, "write_to_online_store", counted)
    monkeypatch.setattr(materializing, "open_repository", lambda _: opened)
    with pytest.raises(KeyboardInterrupt):
        materialize(repository)
    assert sum(sent) == 2 + 12, "the views given and embedding"
    noted = read_json(repository / materializing.PROGRESS)["views"]
    assert {view: [one["rows"] for one in files.values()] for view, files in noted.items() if files} == {
        "given": [2], "embedding": [12],
    }  # fmt: skip
    monkeypatch.undo()
    assert sum(materialize(repository).values()) == 12 + 8 + 2
    apply(repository.parent / "undisturbed")
    write(repository.parent / "undisturbed", run)
    materialize(repository.parent / "undisturbed")
    expected = OnlineMetadata(repository.parent / "undisturbed").of(SLICES)
    assert OnlineMetadata(repository).of(SLICES) == expected


def test_the_latest_fact_is_online_in_whatever_order_they_were_written(repository: Path, run: Path) -> None:
    write_clusters(run, SLICES, [8] * 12, LATE, key="later")
    write(repository, run)
    materialize(repository)
    write_clusters(run, SLICES, [7] * 12, START, key="earlier")
    late = pd.DataFrame({"slice_id": SLICES[1:3], "label": "lesion", "as_of": iso(LATE - timedelta(days=1))})
    write_labels(run, late, source="hidden labels")
    assert write(repository, run)["label"] == 2
    materialize(repository)
    found = OnlineMetadata(repository).of(SLICES[1:3])
    assert [one["cluster"] for one in found if one] == [8, 8]
    assert [one["label"] for one in found if one] == ["normal", None], "the older answers came late"


def test_a_registry_that_holds_functions_is_refused_before_feast_reads_it(repository: Path) -> None:
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry()
    registry.ParseFromString((repository / "registry.db").read_bytes())
    registry.on_demand_feature_views.add().spec.name = "planted"
    (repository / "registry.db").write_bytes(registry.SerializeToString())
    with pytest.raises(ConfigError, match="holds functions"):
        open_repository(repository)
    (repository / "registry.db").write_bytes(b"\x80\x04pickled")
    with pytest.raises(ConfigError, match="no registry"):
        open_repository(repository)


def test_settings_that_feast_refuses_are_refused_without_their_password(repository: Path) -> None:
    settings = (repository / SETTINGS).read_text()
    for wrong in (
        settings.replace("type: sqlite\n  path: online.db", "type: postgres\n  password: geheim\n  host: db"),
        settings.replace("type: sqlite", "type: nonsense"),
        settings.replace("path: online.db", "pfad: geheim"),
        "a: [geheim",
        "- geheim",
    ):
        (repository / SETTINGS).write_text(wrong)
        with pytest.raises(ConfigError, match="Feast refuses") as refused:
            open_repository(repository)
        assert "geheim" not in str(refused.value)


def test_the_commands_lead_from_a_run_to_the_labels_that_were_known(tmp_path: Path, run: Path) -> None:
    repo = str(tmp_path / "made")

    def ran(*arguments: str) -> str:
        found = CliRunner().invoke(app, ["features", *arguments])
        assert found.exit_code == 0, found.output
        return found.output

    assert "pseudo_label" in ran("apply", "--repo", repo)
    assert "cluster 12" in ran("write", "--repo", repo, "--run", str(run))
    assert "embedding 12" in ran("materialize", "--repo", repo)
    assert '"wave": 3' in ran("lookup", "--repo", repo, SLICES[5])
    table, labels = tmp_path / "known.parquet", tmp_path / "out" / "labels"
    ran("training-set", "--repo", repo, "--as-of", iso(LATE), "--output", str(table))
    assert set(pd.read_parquet(table)["slice_id"]) == {*SLICES} - {SLICES[3]}
    ran("training-set", "--repo", repo, "--as-of", iso(LATE), "--labels", str(labels))
    assert read_table(labels, "labels.parquet")["slice_id"].tolist() == SLICES[1:3]
    ran("training-set", "--repo", repo, "--as-of", iso(START), "--labels", str(labels))
    assert read_table(labels, "labels.parquet").empty
    for wrong, message in (
        (["write", "--repo", repo, "--run", str(tmp_path / "none")], "no run"),
        (["lookup", "--repo", str(tmp_path / "none"), "x"], "scanloop features apply"),
        (["training-set", "--repo", repo, "--as-of", "9999-01-01T00:00:00Z", "--output", "x"], "not over"),
        (["training-set", "--repo", repo, "--as-of", "soon", "--output", "x"], "no time"),
        (["training-set", "--repo", repo, "--as-of", iso(LATE)], "either"),
    ):
        refused = CliRunner().invoke(app, ["features", *wrong])
        assert isinstance(refused.exception, ConfigError), refused.output
        assert message in str(refused.exception)


@pytest.fixture
def known_neighbours(tmp_path: Path) -> Path:
    """Three of the five neighbours are known: one given, one read, one with another label than the task says."""
    apply(tmp_path / "features")
    run = write_run(tmp_path / "run", LABELLED[:3], {LABELLED[0]: CLASSES[0], LABELLED[2]: CLASSES[1]})
    write_labels(run, pd.DataFrame({"slice_id": [LABELLED[1]], "label": [CLASSES[1]], "as_of": [iso(START)]}))
    write_wave(run, LABELLED[1:2], 4, START, START)
    write(tmp_path / "features", run)
    materialize(tmp_path / "features")
    return tmp_path / "features"


def alike(site: Site) -> dict[str, list[object]]:
    anna = site.enter("anna")
    found: dict[str, list[object]] = anna.post(f"/api/tasks/{anna.take()['task']}/neighbours").json()
    return found


def test_alike_images_are_shown_with_the_source_of_their_label_their_cluster_and_their_wave(
    make_site: SiteMaker, known_neighbours: Path
) -> None:
    found = alike(make_site(settings={"features": known_neighbours}))
    assert found["labels"] == [CLASSES[number % 2] for number in range(5)]
    assert found["known"] == [
        {"source": "given", "cluster": 0, "wave": None},
        {"source": "read", "cluster": 1, "wave": 4},
        {"source": None, "cluster": 2, "wave": None},
        None,
        None,
    ]


def test_without_a_repository_or_with_one_that_fails_the_labels_are_shown_alone(
    make_site: SiteMaker, known_neighbours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(settings={"features": known_neighbours})

    def fail(self: OnlineMetadata, ids: list[str]) -> None:
        raise OSError("the database is gone")

    monkeypatch.setattr(OnlineMetadata, "of", fail)
    found = alike(site)
    assert len(found["labels"]) == 5
    assert found["known"] == [None] * 5


def test_settings_that_name_no_repository_are_refused_when_the_page_starts(
    make_site: SiteMaker, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="scanloop features apply"):
        make_site(settings={"features": tmp_path / "none"})


def test_a_page_without_a_repository_knows_nothing_more(make_site: SiteMaker) -> None:
    assert alike(make_site())["known"] == [None] * 5
