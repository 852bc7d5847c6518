"""The search index against a plain table of cosines, and what it refuses to read."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import faiss
import numpy as np
import pytest
from chain import Chain
from typer.testing import CliRunner

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.cli import app
from scanloop.embedding.cache import read_embeddings
from scanloop.errors import ArchiveError, ArtifactError, ConfigError
from scanloop.search_command import Query, nearest
from scanloop.triage import neighbours
from scanloop.triage.neighbours import build_index, exact_search, open_index


def clustered(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(50, d))[draw.integers(50, size=n)] + 0.5 * draw.normal(size=(n, d))).astype(np.float16)


def shards(vectors: np.ndarray, size: int = 300) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in any order, as shards of an archive have them."""
    order = np.random.default_rng(1).permutation(len(vectors))
    return [(order[start : start + size], vectors[order[start : start + size]]) for start in range(0, len(order), size)]


def plain(vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    unit = [
        values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1)[:, None]
        for values in (queries, vectors)
    ]
    return (-(unit[0] @ unit[1].T)).argsort(axis=1)[:, :count]


def ids(count: int) -> list[str]:
    return [f"{row:064x}" for row in range(count)]


def test_a_small_archive_is_searched_exactly(tmp_path: Path) -> None:
    vectors = clustered(1000)
    index = build_index(tmp_path, shards(vectors), ids(1000), 32, 1000, 0)
    places, cosines = index.search(vectors[:40], 10)
    np.testing.assert_array_equal(places[:, 0], np.arange(40))
    found = [set(row) for row in places.tolist()]
    agreed = [
        len(one & set(other)) for one, other in zip(found, plain(vectors, vectors[:40], 10).tolist(), strict=True)
    ]
    assert np.mean(agreed) > 9.95  # float32 may swap the tenth and the eleventh
    assert (np.diff(cosines, axis=1) <= 0).all()
    facts = read_json(tmp_path / "neighbours.json")
    assert facts["kind"] == "exact"
    assert facts["recall"] == {"at": 10, "queries": 256, "value": 1.0}


def test_a_large_archive_has_lists_parts_and_a_recall_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "PART_SLICES", 1500)
    monkeypatch.setattr(neighbours, "PROBES", 6)
    vectors = clustered(4000)
    build_index(tmp_path, shards(vectors), ids(4000), 32, 1000, 0)
    index = open_index(tmp_path, ids(4000))
    assert [part["slices"] for part in index.facts["parts"]] == [1500, 1500, 1000]
    assert index.facts["lists"] == 62
    queries = np.sort(np.random.default_rng(0).choice(4000, 256, replace=False))
    places, _ = index.search(vectors[queries], 10)
    true = plain(vectors, vectors[queries], 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), true.tolist(), strict=True)])
    assert index.facts["recall"]["value"] == pytest.approx(recall, abs=0.01)
    assert 0.8 < recall < 1
    held = sum((tmp_path / part["file"]).stat().st_size for part in index.facts["parts"])
    assert held < 0.6 * vectors.astype(np.float32).nbytes


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    vectors = clustered(3000)
    for name in "ab":
        build_index(tmp_path / name, shards(vectors), ids(3000), 32, 500, 4)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 2
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_fewer_slices_than_are_asked_for_end_in_nothing(tmp_path: Path) -> None:
    vectors = clustered(3)
    places, cosines = build_index(tmp_path, shards(vectors), ids(3), 32, 10, 0).search(vectors[:1], 5)
    assert sorted(places[0, :3].tolist()) == [0, 1, 2]
    assert places[0, 3:].tolist() == [-1, -1]
    assert np.isneginf(cosines[0, 3:]).all()


def test_the_exact_search_goes_shard_by_shard_and_forgets(tmp_path: Path) -> None:
    vectors = clustered(20_000, 64)
    parts = shards(vectors, 500)
    tracemalloc.start()
    found, _ = exact_search(
        parts, vectors[:8].astype(np.float32) / np.linalg.norm(vectors[:8].astype(np.float32), axis=1)[:, None], 5
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found[:, 0], np.arange(8))
    assert peak < vectors.nbytes / 4


@pytest.mark.parametrize("damage", ["flip", "longer", "gone", "swapped"])
def test_a_part_that_is_not_the_one_written_is_never_read(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(200)
    index = build_index(tmp_path, shards(vectors), ids(200), 32, 1000, 0)
    path = tmp_path / "neighbours" / "part-000000.faiss"
    payload = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "longer":
        path.write_bytes(payload + b"x")
    elif damage == "flip":
        payload[40] ^= 1
        path.write_bytes(payload)
    else:
        path.write_bytes(b"\0" * len(payload))
    read: list[int] = []
    monkeypatch.setattr(faiss, "deserialize_index", lambda *_: read.append(1))
    with pytest.raises(ArtifactError, match="run triage again"):
        index.search(vectors[:1], 3)
    assert not read


def test_an_index_that_promises_more_bytes_than_its_vectors_need_is_refused(tmp_path: Path) -> None:
    vectors = clustered(200)
    build_index(tmp_path, shards(vectors), ids(200), 32, 1000, 0)
    path, facts = tmp_path / "neighbours" / "part-000000.faiss", read_json(tmp_path / "neighbours.json")
    path.write_bytes(b"\0" * (1 << 22))
    facts["parts"][0]["bytes"] = 1 << 22
    write_json(tmp_path / "neighbours.json", facts)
    with pytest.raises(ArtifactError, match="bytes"):
        open_index(tmp_path, ids(200)).search(vectors[:1], 3)
    with pytest.raises(ArtifactError, match="of other slices"):
        open_index(tmp_path, ids(199))


def test_search_finds_a_slice_by_itself_and_an_image_by_its_pixels(chain: Chain, tmp_path: Path) -> None:
    manifest, stored = read_table(chain["triage"].parent / "catalog", "manifest"), read_embeddings(chain["embeddings"])
    run, slice_id = chain.folder, manifest["slice_id"].iloc[7]
    query = Query(stored.of([slice_id]), slice_id)
    found = nearest(run, query, 6)
    values = stored.vectors.astype(np.float64)
    unit = values / np.linalg.norm(values, axis=1)[:, None]
    cosines = unit @ unit[stored.slice_ids.index(slice_id)]
    cosines[stored.slice_ids.index(slice_id)] = -1
    assert found["cosine"].tolist() == pytest.approx(sorted(cosines)[::-1][:6], abs=1e-6)
    assert slice_id not in set(found["slice_id"])
    known = manifest.set_index("slice_id")
    assert (found["split"].to_numpy() == known.loc[found["slice_id"], "split"].to_numpy()).all()

    ((_, _, (image,)),) = iterate_shards(chain["catalog"], manifest.iloc[[7]])
    path = tmp_path / "query.png"
    path.write_bytes(neighbours_png(image))
    result = CliRunner().invoke(
        app, ["search", "--run", str(run), "--image", str(path), "-k", "3"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.exception
    assert slice_id[:16] in result.output
    result = CliRunner().invoke(
        app, ["search", "--run", str(run), "--slice", slice_id[:12], "-k", "3"], env={"COLUMNS": "200"}
    )
    assert found["slice_id"].iloc[0][:16] in result.output
    assert slice_id[:16] not in result.output


def neighbours_png(image: np.ndarray) -> bytes:
    from scanloop.archive.decode import encode_png

    return encode_png(image)


def test_search_asks_for_one_thing_that_exists(chain: Chain, tmp_path: Path) -> None:
    assert chain["triage"].is_dir()
    run = ["search", "--run", str(chain.folder)]
    assert isinstance(CliRunner().invoke(app, run).exception, ConfigError)
    assert isinstance(CliRunner().invoke(app, [*run, "--slice", "nothing"]).exception, ArchiveError)
    assert isinstance(CliRunner().invoke(app, [*run, "--image", str(tmp_path / "no.png")]).exception, ArchiveError)


@pytest.mark.parametrize("order", ["faiss, torch", "torch, faiss"])
def test_faiss_and_torch_work_in_one_process_in_either_order(order: str) -> None:
    """Each brings an OpenMP of its own; a clash shows as a crash or a hang in the first parallel work."""
    code = (
        f"import {order}; import numpy as np; x = np.random.default_rng(0).normal(size=(3000, 64)).astype('f');"
        "a = torch.nn.Linear(64, 64)(torch.from_numpy(x)).sum(); a.backward(); d, i = faiss.knn(x, x, 5);"
        "k = faiss.Kmeans(64, 8, niter=3); k.train(x); b = torch.from_numpy(x) @ torch.from_numpy(x).T;"
        "assert (i[:, 0] == np.arange(3000)).all() and torch.isfinite(b).all(); print('both')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "both"), done.stderr
