"""The readers' page tells what the feature repository knows of alike images, and reads on without it."""

from pathlib import Path

import pandas as pd
import pytest
from feature_runs import START, iso, write_labels, write_run, write_wave
from label_pages import LABELLED, Site, SiteMaker
from label_stores import CLASSES

from scanloop.errors import ConfigError
from scanloop.features.materialize import materialize
from scanloop.features.offline import write
from scanloop.features.online import OnlineMetadata
from scanloop.features.repository import apply


@pytest.fixture
def repository(tmp_path: Path) -> Path:
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
    make_site: SiteMaker, repository: Path
) -> None:
    found = alike(make_site(settings={"features": repository}))
    assert found["labels"] == [CLASSES[number % 2] for number in range(5)]
    assert found["known"] == [
        {"source": "given", "cluster": 0, "wave": None},
        {"source": "read", "cluster": 1, "wave": 4},
        {"source": None, "cluster": 2, "wave": None},
        None,
        None,
    ]


def test_without_a_repository_or_with_one_that_fails_the_labels_are_shown_alone(
    make_site: SiteMaker, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(settings={"features": repository})

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
