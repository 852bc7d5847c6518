"""Embedding: vectors in order, whatever the batch, and nothing embedded twice."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chain import PLANS, SOURCE, Chain

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import is_exempt, read_json, read_table
from scanloop.config import EmbedConfig, IngestConfig
from scanloop.embedding.cache import Embeddings, read_embeddings, read_vectors, vectors_path, write_vectors
from scanloop.embedding.encoders import new_encoder, read_encoder
from scanloop.embedding.engine import Engine
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ArtifactError
from scanloop.steps.embed import embed
from scanloop.steps.embed_part import STORE
from scanloop.steps.ingest import ingest


def draw(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(40 + index % 3, 36) if index % 2 else (33, 50, 3) for index in range(count)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.fixture(scope="module")
def counted() -> Engine:
    return Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), batch_size=8)


def test_vectors_are_float16_in_the_order_of_the_slices(counted: Engine) -> None:
    slices = draw(11)
    vectors = counted(slices)
    assert vectors.dtype == np.float16
    assert vectors.shape == (11, 256)
    plain = new_encoder("smallcnn", seed=1).eval()
    with torch.inference_mode():
        for image, vector in zip(slices, vectors, strict=True):
            expected = plain(torch.from_numpy(counted.preprocess([image])))[0].numpy()
            np.testing.assert_allclose(vector, expected, rtol=2e-3, atol=1e-3)


def test_the_batch_size_does_not_matter() -> None:
    slices = draw(13)
    whole = Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), 64)(slices)
    for batch_size in (1, 4, 13):
        other = Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), batch_size)(slices)
        np.testing.assert_allclose(other, whole, rtol=2e-3, atol=1e-3)


def test_reversing_the_slices_reverses_the_vectors_and_no_slices_give_none(counted: Engine) -> None:
    slices = draw(10)
    np.testing.assert_allclose(counted(slices[::-1])[::-1], counted(slices), rtol=2e-3, atol=1e-3)
    assert counted([]).shape == (0, 256)


def test_an_encoder_left_in_training_mode_embeds_in_evaluation_mode() -> None:
    encoder = new_encoder("smallcnn", seed=1).train()
    before = encoder.blocks[0][1].running_mean.clone()
    Engine(encoder, Preprocess(input_px=32), 4)(draw(6))
    assert torch.equal(encoder.blocks[0][1].running_mean, before)


def test_vectors_survive_their_file_and_a_torn_file_is_none(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
    path = vectors_path(tmp_path, "e" * 64, "s" * 64)
    write_vectors(path, vectors[:, ::-1])
    np.testing.assert_array_equal(read_vectors(path), vectors[:, ::-1])
    payload = path.read_bytes()
    for torn in (b"", payload[:-1], payload[: len(payload) // 2], b"x" + payload[1:]):
        path.write_bytes(torn)
        assert read_vectors(path) is None
    assert read_vectors(tmp_path / "nowhere") is None


def test_vectors_are_found_by_slice_and_a_slice_without_one_is_named() -> None:
    embeddings = Embeddings(["a", "b", "c"], np.arange(6, dtype=np.float16).reshape(3, 2))
    np.testing.assert_array_equal(embeddings.of(["c", "a", "c"]), [[4, 5], [0, 1], [4, 5]])
    assert embeddings.of([]).shape == (0, 2)
    with pytest.raises(ArtifactError, match="slice z has no embedding"):
        embeddings.of(["a", "z"])


def test_every_slice_of_the_catalog_has_the_vector_of_its_own_image(chain: Chain) -> None:
    manifest = read_table(chain["catalog"], "manifest")
    embeddings = read_embeddings(chain["embeddings"])
    assert sorted(embeddings.slice_ids) == sorted(manifest["slice_id"])
    encoder, preprocess = read_encoder(chain["encoder"])
    rows = manifest.sample(12, random_state=0)
    for _, ids, images in iterate_shards(chain["catalog"], rows):
        with torch.inference_mode():
            expected = torch.cat([encoder(torch.from_numpy(preprocess([image]))) for image in images]).numpy()
        np.testing.assert_allclose(embeddings.of(ids), expected, rtol=2e-3, atol=1e-3)


@pytest.fixture
def embedded_slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of slices of each shard that the engine embeds."""
    calls: list[int] = []
    over = Engine.over

    def counting(engine: Engine, groups: Iterable[Any], decode: Callable[[Any], Any]) -> Iterator[Any]:
        for name, vectors in over(engine, groups, decode):
            calls.append(len(vectors))
            yield name, vectors

    monkeypatch.setattr(Engine, "over", counting)
    return calls


def test_two_runs_give_the_same_bytes(chain: Chain, tmp_path: Path, embedded_slices: list[int]) -> None:
    inputs = chain.inputs("catalog", "encoder")
    summary = embed(EmbedConfig(), **inputs, output=tmp_path / "embeddings")
    assert summary == chain.summary("embeddings")
    assert embedded_slices == [50, 50, 20]
    assert contents(tmp_path / "embeddings") == contents(chain["embeddings"])


def test_what_the_cache_holds_is_not_embedded_again(chain: Chain, tmp_path: Path, embedded_slices: list[int]) -> None:
    inputs = chain.inputs("catalog", "encoder")
    shutil.copytree(chain["embeddings"].parent / STORE, tmp_path / STORE)
    shard = read_json(chain["catalog"] / "catalog.json")["shards"]["shard-000001.tar"]
    (cached,) = (tmp_path / STORE).rglob(f"{shard[:16]}.safetensors")
    planted = np.full((50, 256), 7, np.float16)
    write_vectors(cached, planted)
    embed(EmbedConfig(), **inputs, output=tmp_path / "embeddings")
    assert embedded_slices == []
    manifest = read_table(chain["catalog"], "manifest")
    ids = manifest.loc[manifest["shard"] == "shard-000001.tar", "slice_id"].tolist()
    np.testing.assert_array_equal(read_embeddings(tmp_path / "embeddings").of(ids), planted)


@pytest.mark.parametrize(
    ("name", "changed"),
    [("code_digest", lambda _: "another line"), ("packages", lambda: {"torch": "another"}), ("nothing", None)],
)
def test_vectors_of_other_code_or_packages_are_made_again(
    name: str,
    changed: Callable[..., object],
    chain: Chain,
    tmp_path: Path,
    embedded_slices: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = chain.inputs("catalog", "encoder")
    shutil.copytree(chain["embeddings"].parent / STORE, tmp_path / STORE)
    if changed:
        for module in ("scanloop.build", "scanloop.embedding.ranges"):
            monkeypatch.setattr(f"{module}.{name}", changed)
    embed(EmbedConfig(), **inputs, output=tmp_path / "embeddings")
    assert embedded_slices == ([50, 50, 20] if changed else [])
    embed(EmbedConfig(), **inputs, output=tmp_path / "again")
    assert embedded_slices == ([50, 50, 20] if changed else [])


def test_vectors_of_another_batch_size_whose_last_bits_may_differ_are_made_again(
    chain: Chain, tmp_path: Path, embedded_slices: list[int]
) -> None:
    shutil.copytree(chain["embeddings"].parent / STORE, tmp_path / STORE)
    embed(EmbedConfig(batch_size=7), **chain.inputs("catalog", "encoder"), output=tmp_path / "embeddings")
    assert embedded_slices == [50, 50, 20]


def test_an_encoder_prepared_for_slices_of_another_size_is_refused(chain: Chain, tmp_path: Path) -> None:
    ingest(PLANS["catalog"][1].model_copy(update={"short_side_px": 24}), output=tmp_path / "catalog")
    with pytest.raises(ArtifactError, match=r"24 px.*prepared for 32; run pretrain.*short_side_px to 32"):
        embed(EmbedConfig(), catalog=tmp_path / "catalog", encoder=chain["encoder"], output=tmp_path / "embeddings")


def test_a_cached_file_that_is_torn_or_of_another_length_is_made_again(
    chain: Chain, tmp_path: Path, embedded_slices: list[int]
) -> None:
    shutil.copytree(chain["embeddings"].parent / STORE, tmp_path / STORE)
    torn, short, _ = sorted((tmp_path / STORE).rglob("*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:-3])
    write_vectors(short, np.zeros((3, 256), np.float16))
    embed(EmbedConfig(), **chain.inputs("catalog", "encoder"), output=tmp_path / "embeddings")
    assert len(embedded_slices) == 2
    assert contents(tmp_path / "embeddings") == contents(chain["embeddings"])


def test_a_run_killed_in_its_second_shard_continues_there_and_ends_in_the_same_bytes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, over, calls = chain.inputs("catalog", "encoder"), Engine.over, []

    def dies(engine: Engine, groups: Iterable[Any], decode: Callable[[Any], Any]) -> Iterator[Any]:
        for name, vectors in over(engine, groups, decode):
            calls.append(len(vectors))
            if len(calls) == 2:
                raise KeyboardInterrupt
            yield name, vectors

    monkeypatch.setattr(Engine, "over", dies)
    with pytest.raises(KeyboardInterrupt):
        embed(EmbedConfig(), **inputs, output=tmp_path / "embeddings")
    embed(EmbedConfig(), **inputs, output=tmp_path / "embeddings")
    assert calls == [50, 50, 50, 20]
    assert contents(tmp_path / "embeddings") == contents(chain["embeddings"])


def test_a_grown_archive_embeds_its_new_shards_only(chain: Chain, tmp_path: Path, embedded_slices: list[int]) -> None:
    """The same cohort with and without its last slices: whole shards stay as they are, the last one changes."""
    for name, keep in (("first", 100), ("grown", 140)):
        source = tmp_path / f"source-{name}"
        new_folder_archive(source, keep)
        config = IngestConfig(
            source={"kind": "folder", "path": str(source), "deidentify": False}, short_side_px=32, shard_slices=40
        )
        ingest(config, output=tmp_path / f"catalog-{name}")
    embed(
        EmbedConfig(),
        catalog=tmp_path / "catalog-first",
        encoder=chain["encoder"],
        output=tmp_path / "embeddings",
    )
    assert embedded_slices == [40, 40, 20]
    before = read_embeddings(tmp_path / "embeddings")
    embedded_slices.clear()
    embed(
        EmbedConfig(),
        catalog=tmp_path / "catalog-grown",
        encoder=chain["encoder"],
        output=tmp_path / "embeddings",
    )
    assert embedded_slices == [40, 20]
    after = read_embeddings(tmp_path / "embeddings")
    assert len(after.slice_ids) == 140
    np.testing.assert_allclose(after.of(before.slice_ids), before.vectors, rtol=2e-3, atol=1e-3)


def new_folder_archive(folder: Path, count: int) -> None:
    """Slices in the order of their names, so that more of them come after those that were there."""
    import PIL.Image

    rng = np.random.default_rng(SOURCE.seed)
    for index in range(count):
        place = folder / ("labelled/" + "ab"[index % 2] if index < 20 else "unlabelled")
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(place / f"{index:04d}.png")


def test_vectors_that_went_missing_are_named(chain: Chain, tmp_path: Path) -> None:
    copy = shutil.copytree(chain["embeddings"], tmp_path / "embeddings")
    next(copy.rglob("*.safetensors")).unlink()
    with pytest.raises(ArtifactError, match="is missing or broken; run embed again"):
        read_embeddings(copy)


def contents(artifact: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(artifact)): path.read_bytes()
        for path in sorted(artifact.rglob("*"))
        if path.is_file() and not is_exempt(path)
    }
