"""Looks are counted and bounded, decisions logged, and former champions still hold a challenger to their level."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chain import Chain
from promoted import EASY, client, decide, model_name, new_evaluation, no_looks, run_folder  # noqa: F401  fixtures

from scanloop.artifacts import read_json
from scanloop.tracking import DECISION_TAG, Registry


def test_each_model_is_a_look_and_a_model_judged_again_is_none(chain: Chain, folder: Path, name: str) -> None:
    config = EASY.model_copy(update={"model_name": name, "max_looks": 2})
    evaluations = [new_evaluation(chain, folder, f"{name}-{mark}", wrong=1) for mark in "abc"]
    for number, mark in enumerate("ab", 1):
        assert decide(chain, folder, config, evaluations[number - 1], f"{name}-{mark}").decision == "promoted"
        look = read_json(folder / f"{name}-{mark}" / "promotion.json")["look"]
        assert (look["number"], look["most"]) == (number, 2)
        assert look["tail"] == pytest.approx(0.2 / (number * (number + 1)))
    other = config.model_copy(update={"model_name": f"{name}-other"})
    for line in (config, other):  # the hold-out is the same, whatever the model is called
        refused = decide(chain, folder, line, evaluations[2], f"{line.model_name}-c")
        assert refused.decision == "refused"
        assert "this hold-out has judged 2 models" in refused.reason
        assert "collect a new hold-out" in refused.reason
        told = read_json(folder / f"{line.model_name}-c" / "promotion.json")
        assert [check["name"] for check in told["checks"]] == ["looks at the hold-out"]  # nothing was judged
    again = decide(chain, folder, config, evaluations[0], f"{name}-again")
    assert again.decision == "promoted"
    assert read_json(folder / f"{name}-again" / "promotion.json")["look"]["number"] == 1
    reseeded = decide(chain, folder, config.model_copy(update={"seed": 9}), evaluations[0], f"{name}-reseeded")
    assert "has judged 2 models" in reseeded.reason  # another seed is another try


def test_every_decision_is_a_run_in_mlflow_with_all_its_figures(chain: Chain, folder: Path, name: str) -> None:
    config = EASY.model_copy(update={"model_name": name})
    first, worse = (new_evaluation(chain, folder, f"{name}-{mark}", wrong) for mark, wrong in (("a", 2), ("b", 14)))
    decide(chain, folder, config, first, f"{name}-1")
    decide(chain, folder, config, worse, f"{name}-2")
    shutil.rmtree(folder / f"{name}-2")
    decide(chain, folder, config, worse, f"{name}-2")  # the same decision once more
    experiment = client(folder).get_experiment_by_name(name).experiment_id
    runs = client(folder).search_runs([experiment], f"tags.`{DECISION_TAG}` != ''", order_by=["start_time ASC"])
    assert [run.data.tags[DECISION_TAG] for run in runs] == ["promoted", "refused"]
    told = read_json(folder / f"{name}-2" / "promotion.json")
    logged = runs[1].data.metrics
    assert (logged["look"], logged["promoted"]) == (2, 0)
    check = next(check for check in told["checks"] if check["name"] == "against the champion")
    assert logged["check.against_the_champion.value"] == pytest.approx(check["value"])
    assert logged["check.against_the_champion.passed"] == 0
    assert logged["mcnemar.only_champion"] == told["tests"]["mcnemar"]["only_champion"] > 0
    assert logged["delong.0.difference"] == pytest.approx(told["tests"]["delong"][0]["difference"])
    kept = client(folder).download_artifacts(runs[1].info.run_id, "promotion.json", str(folder / f"{name}-2"))
    assert read_json(Path(kept)) == told


def test_a_champion_of_the_past_still_holds_a_challenger_to_its_level(chain: Chain, folder: Path, name: str) -> None:
    config = EASY.model_copy(update={"model_name": name, "confidence": 0.51, "margin": 0.45})
    evaluations = [
        new_evaluation(chain, folder, f"{name}-{mark}", wrong) for mark, wrong in zip("abc", (0, 5, 9), strict=True)
    ]
    said = [
        decide(chain, folder, config, each, f"{name}-{mark}") for mark, each in zip("abc", evaluations, strict=True)
    ]
    assert [one.decision for one in said] == ["promoted", "promoted", "refused"]
    assert "against the best champion so far (version 1)" in said[2].reason


def test_looks_at_the_same_time_are_all_counted_and_never_as_earlier_ones(folder: Path) -> None:
    def judge(key: str) -> int:
        return Registry.local(folder, "model").look("hold-out", key, 50)

    judge("first")
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(judge, [f"key-{number}" for number in range(6)]))
    assert min(numbers) >= 2
    assert max(numbers) == 7
    assert all(number >= rank for rank, number in enumerate(sorted(numbers), 2))
    registry = Registry.local(folder, "model")
    assert [registry.look("hold-out", f"key-{key}", 50) for key in range(6)] == numbers
    assert registry.look("hold-out", "one more", 50) == 8
    assert registry.look("another hold-out", "one more", 50) == 1
