"""A precision that is not faithful is refused or replaced, before an archive is embedded with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import Chain
from scipy.spatial.distance import cdist

from scanloop.artifacts import read_json
from scanloop.config import EmbedConfig
from scanloop.embedding.engine import Engine
from scanloop.embedding.fidelity import fidelity, first_faithful
from scanloop.errors import ConfigError
from scanloop.steps.embed import embed

EXACT = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float16)


def noisy(size: float, seed: int = 1) -> np.ndarray:
    return (EXACT + size * np.random.default_rng(seed).normal(size=EXACT.shape)).astype(np.float16)


def test_the_figures_are_those_of_scipys_cosine_distances() -> None:
    vectors = noisy(0.3)
    found = fidelity(vectors, EXACT)
    cosines = 1 - np.diag(cdist(vectors.astype(float), EXACT.astype(float), "cosine"))
    assert (found.cosine_min, found.cosine_mean) == pytest.approx((cosines.min(), cosines.mean()), abs=1e-6)
    nearest = [np.argsort(cdist(one, one, "cosine") + 9 * np.eye(40), axis=1)[:, :10] for one in (vectors, EXACT)]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
    assert found.neighbours_shared == pytest.approx(shared, abs=1e-6)
    assert found.slices == 40


def test_equal_vectors_are_faithful_and_a_single_slice_has_no_neighbours_to_lose() -> None:
    assert vars(fidelity(EXACT, EXACT)) == {"slices": 40, "cosine_min": 1, "cosine_mean": 1, "neighbours_shared": 1}
    assert fidelity(noisy(0.1)[:1], EXACT[:1]).neighbours_shared == 1


def in_precision(**noise: float) -> Any:
    return lambda precision: noisy(noise.get(precision, 0.0))


def test_what_is_faithful_is_taken_and_told() -> None:
    found = first_faithful(EmbedConfig(precision="int8"), in_precision(int8=0.01))
    assert list(found) == ["int8"]
    assert 0.99 < found["int8"].cosine_min < 1


def test_what_is_not_is_refused_with_its_figure_and_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"int8 is not faithful: least cosine 0\.\d{4} .*min_cosine is 0\.99; .*bf16"):
        first_faithful(EmbedConfig(precision="int8"), in_precision(int8=0.5))
    with pytest.raises(ConfigError, match=r"bf16 is not faithful.*precision to float32, or embed.fall_back to true"):
        first_faithful(EmbedConfig(precision="bf16"), in_precision(bf16=0.5))


@pytest.mark.parametrize(
    ("noise", "tried"),
    [({"int8": 0.5}, ["int8", "bf16"]), ({"int8": 0.5, "bf16": 0.5}, ["int8", "bf16", "float32"])],
)
def test_or_replaced_by_the_first_that_is(noise: dict[str, float], tried: list[str]) -> None:
    found = first_faithful(EmbedConfig(precision="int8", fall_back=True), in_precision(**noise))
    assert list(found) == tried
    assert found[tried[-1]].cosine_min >= 0.99


def test_an_archive_is_embedded_in_what_is_fallen_back_to_and_the_artifact_says_so(
    chain: Chain, tmp_path: Path
) -> None:
    inputs = chain.inputs("catalog", "encoder")
    strict = EmbedConfig(precision="int8", min_cosine=1.0)
    with pytest.raises(ConfigError, match="int8 is not faithful"):
        embed(strict, **inputs, output=tmp_path / "embeddings")
    assert not (tmp_path / "embeddings").exists()
    summary = embed(strict.model_copy(update={"fall_back": True}), **inputs, output=tmp_path / "embeddings")
    assert summary.precision == "float32"
    facts = read_json(tmp_path / "embeddings" / "embeddings.json")
    assert set(facts["fidelity"]) == {"int8", "bf16", "float32"}
    exact = read_json(chain["embeddings"] / "embeddings.json")
    for shard, path in facts["files"].items():
        assert (tmp_path / "embeddings" / path).read_bytes() == (
            chain["embeddings"] / exact["files"][shard]
        ).read_bytes()


def test_what_is_known_of_a_precision_is_not_measured_again(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, config = chain.inputs("catalog", "encoder"), EmbedConfig(precision="bf16", min_cosine=0.9)
    embed(config, **inputs, output=tmp_path / "embeddings")
    first = (tmp_path / "embeddings" / "embeddings.json").read_bytes()
    monkeypatch.setattr(Engine, "__init__", lambda *_, **__: pytest.fail("an engine was made"))
    embed(config, **inputs, output=tmp_path / "again")
    assert (tmp_path / "again" / "embeddings.json").read_bytes() == first
