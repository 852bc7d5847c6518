"""Whether an origin is read from an embedding, on data whose answer is known, and on real chest X-rays."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain import PLANS, Chain
from scipy.stats.contingency import association

from scanloop.archive.decode import decode
from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.engine import Engine
from scanloop.embedding.weights import load_weights
from scanloop.learning import probe as module
from scanloop.learning.probe import cramers_v, draw, origins, probe
from scanloop.steps.triage import triage


def sites(n: int, gap: float, seed: int = 0, confounded: float = 0.5) -> tuple[np.ndarray, ...]:
    """Vectors, site, group (of two) and label of images; the label is the site's with probability `confounded`."""
    generator = np.random.default_rng(seed)
    groups = np.arange(n) // 2
    site = generator.integers(2, size=n // 2 + 1)[groups]
    label = np.where(generator.random(n) < confounded, site, 1 - site)
    vectors = generator.normal(size=(n, 16)) + gap * site[:, None]
    names = np.array(["lyon", "paris"], dtype=object)
    return vectors, names[site], groups.astype(str), np.array(["cancer", "normal"], dtype=object)[label]


def test_a_site_that_moves_every_embedding_is_read_and_one_that_moves_none_is_not() -> None:
    found = probe("site", *sites(400, 1.5, confounded=0.9), seed=0)
    assert found.accuracy.value > 0.97
    assert found.readable
    assert (found.accuracy.n, found.accuracy.groups) == (400, 200)
    assert found.accuracy.low > 0.9 > found.chance > 0.5
    assert found.association is not None
    assert found.association.low > 0.5
    assert found.verdict.startswith("site can be read from the embedding: balanced accuracy ")
    assert "learn it in place of the disease" in found.verdict
    assert sum(found.values.values()) == 200


def test_over_many_draws_nothing_is_read_where_there_is_nothing() -> None:
    readings = [probe("site", *sites(160, 0.0, seed=seed), seed=seed) for seed in range(20)]
    assert np.mean([found.accuracy.value for found in readings]) == pytest.approx(0.5, abs=0.04)
    assert sum(found.readable for found in readings) <= 2
    assert all(0.5 < found.chance < 0.68 for found in readings)
    assert sum("in place of the disease" in found.verdict for found in readings) <= 1


def test_a_patients_other_image_does_not_give_the_site_away() -> None:
    """Each patient has a direction of its own and the site none: only folds by group keep this from being read."""
    generator = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 6)
    vectors = 5 * generator.normal(size=(60, 40))[patient] + 0.1 * generator.normal(size=(360, 40))
    site = np.where(generator.integers(2, size=60)[patient] == 0, "a", "b").astype(object)
    by_group = probe("site", vectors, site, patient.astype(str), np.full(360, None), seed=0)
    by_image = probe("site", vectors, site, np.arange(360).astype(str), np.full(360, None), seed=0)
    assert by_image.accuracy.value > by_group.accuracy.value + 0.1
    assert by_image.readable
    assert not by_group.readable
    assert by_group.association is None


def test_cramers_v_agrees_with_scipy_on_large_tables_and_knows_independence() -> None:
    generator = np.random.default_rng(0)
    tables = generator.integers(200, 9000, size=(8, 3, 4)).astype(float)
    expected = [association(table.astype(int), method="cramer", correction=False) for table in tables]
    np.testing.assert_allclose(cramers_v(tables), expected, atol=2e-3)
    np.testing.assert_allclose(cramers_v(np.array([[[30.0, 60], [10, 20]], [[40, 0], [0, 25]]])), [0, 1], atol=0.01)


def rows(**columns: list) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    plain = {
        "slice_id": [f"s{row}" for row in range(count)],
        "group_id": [f"g{row}" for row in range(count)],
        "site": [None] * count,
        "modality": [None] * count,
    }
    return pd.DataFrame(plain | columns, dtype=object)


def test_only_attributes_with_two_frequent_values_are_probed_and_rare_values_are_left_out() -> None:
    manifest = rows(site=["a"] * 20 + ["b"] * 25 + ["c"] * 19 + [None] * 5, modality=["MR"] * 69)
    view = pd.DataFrame({"slice_id": manifest["slice_id"][:60], "name": "view", "value": ["AP", "PA"] * 30})
    few = pd.DataFrame({"slice_id": manifest["slice_id"][:39], "name": "device", "value": (["x", "y"] * 20)[:39]})
    found = origins(manifest, pd.concat([view, few]))
    assert sorted(found) == ["site", "view"]
    assert found["site"].value_counts().to_dict() == {"a": 20, "b": 25}
    assert found["view"].notna().sum() == 60
    assert "site" not in origins(manifest.assign(group_id="one"), None)


def test_a_large_archive_is_drawn_from_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SLICES", 100)
    values = pd.Series(["a"] * 900 + ["b"] * 60 + [None] * 40, dtype=object)
    chosen = values.iloc[draw(values, seed=0)]
    assert chosen.value_counts().to_dict() == {"a": 50, "b": 50}
    assert draw(values, 0).tolist() == draw(values, 0).tolist()


def test_triage_says_which_attributes_the_embedding_tells(chain: Chain, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    for path in chain["catalog"].iterdir():
        if path.name != "artifact.json":
            (catalog / path.name).symlink_to(path)
    manifest = read_table(chain["catalog"], "manifest")
    coin = np.where(np.random.default_rng(0).integers(2, size=len(manifest)) > 0, "new", "old")
    frame = pd.DataFrame({"slice_id": manifest["slice_id"], "name": "scanner", "value": coin})
    write_table(catalog, "attributes.parquet", frame)
    write_json(catalog / "artifact.json", {"key": "with scanners"})
    triage(PLANS["triage"][1], catalog=catalog, embeddings=chain["embeddings"], output=tmp_path / "triage")
    (reading,) = read_json(tmp_path / "triage" / "triage.json")["origins"]
    train = manifest[manifest["split"] == "train"]
    assert reading["name"] == "scanner"
    assert reading["accuracy"]["n"] == len(train)
    assert reading["permutations"] == 1000
    assert not reading["readable"]


def test_the_view_of_real_chest_x_rays_is_read_from_their_embedding(data_dir: Path) -> None:
    with tarfile.open(data_dir / "nih_cxr14_1024.tar") as tar:
        table = tar.extractfile("metadata.csv")
        assert table is not None
        metadata = list(csv.DictReader(io.TextIOWrapper(table)))
        payloads = [tar.extractfile(row["file"]) for row in metadata]
        images = [decode(file.read(), min_side_px=8, max_pixels=10**7, short_side_px=256) for file in payloads if file]
    encoder = new_encoder("squeezenet1_1", 0)
    preprocess = load_weights(encoder, str(data_dir / "weights" / "SqueezeNet_fp16.onnx"), 128)
    vectors = Engine(encoder, preprocess, 32)(images)
    views, patients, labels = (
        np.array([row[name] for row in metadata], dtype=object) for name in ("view", "patient_id", "label")
    )
    found = probe("view", vectors, views, patients, labels, seed=0)
    assert set(found.values) == {"AP", "PA"}
    assert found.readable, found.verdict
    assert found.accuracy.low > found.chance
    print(found.verdict)
