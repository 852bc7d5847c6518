"""Artifacts tell what an archive and weights hold, and nothing of where they lie or of how the path is spelled."""

import shutil
from pathlib import Path

import pytest
import torch
from test_ingest import file_bytes, small

from scanloop.artifacts import read_json
from scanloop.config import FolderSource, IngestConfig, PretrainConfig
from scanloop.embedding.encoders import new_encoder
from scanloop.provenance import file_digest
from scanloop.steps.ingest import ingest
from scanloop.steps.pretrain import pretrain


def made(output: Path, archive: str, weights: str) -> dict[str, bytes]:
    """Every file of a catalog and an encoder, but for the records, which are not the steps' own."""
    ingest(IngestConfig(source=FolderSource(path=archive, deidentify=False)), output=output / "catalog")
    config = PretrainConfig(method="none", weights=weights, input_px=32)
    pretrain(config, catalog=output / "catalog", output=output / "encoder")
    return {
        f"{name}/{path}": payload
        for name in ("catalog", "encoder")
        for path, payload in file_bytes(output / name).items()
        if path != "artifact.json"
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "ward"
    small(folder / "archive.v2")
    torch.save(new_encoder("smallcnn", seed=1).state_dict(), folder / "weights.pth")
    return folder


def test_archive_and_weights_in_another_folder_give_the_same_bytes(first: Path, tmp_path: Path) -> None:
    other = shutil.copytree(first, tmp_path / "elsewhere" / "below")
    here = made(tmp_path / "one", str(first / "archive.v2"), str(first / "weights.pth"))
    assert made(tmp_path / "two", str(other / "archive.v2"), str(other / "weights.pth")) == here
    for name, payload in here.items():
        assert str(first).encode() not in payload, name
    facts = read_json(tmp_path / "one" / "encoder" / "encoder.json")["hyperparameters"]
    assert (facts["weights"], facts["weights_sha256"]) == ("weights.pth", file_digest(first / "weights.pth"))


def test_a_path_spelled_in_another_way_gives_the_same_bytes(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(tmp_path / "one", str(first / "archive.v2"), str(first / "weights.pth"))
    assert read_json(tmp_path / "one" / "catalog" / "catalog.json")["name"] == "archive"
    monkeypatch.chdir(first / "archive.v2")
    assert made(tmp_path / "two", ".", "../weights.pth") == whole
