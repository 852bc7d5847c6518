"""Promote: a decision on bounds, carried out once in a real MLflow registry, whatever dies in between."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from chain import PLANS, Chain
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from promoted import EASY, client, decide, forget_looks, model_name, new_evaluation, no_looks, run_folder  # noqa: F401  fixtures
from tiny_bundle import reseal

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.errors import LeakageError
from scanloop.provenance import file_digest
from scanloop.steps.promote import promote
from scanloop.tracking import DECISION_TAG, KEY_TAG, Registry


def versions(folder: Path, name: str) -> list[Any]:
    return client(folder).search_model_versions(f"name = '{name}'")


def alias_key(folder: Path, name: str, alias: str) -> str:
    return client(folder).get_model_version_by_alias(name, alias).tags[KEY_TAG]


def test_below_a_hundred_groups_it_refuses_says_how_many_are_missing_and_registers_a_challenger(
    chain: Chain, folder: Path, name: str
) -> None:
    config = PLANS["promotion"][1].model_copy(update={"model_name": name})
    summary = decide(chain, folder, config, chain["evaluation"], f"{name}-promotion")
    assert (summary.decision, summary.alias) == ("refused", "challenger")
    assert "12 independent groups, 88 fewer than the 100 that a decision needs" in summary.reason
    key = read_json(chain["evaluation"] / "artifact.json")["key"]
    assert alias_key(folder, name, "challenger") == key
    with pytest.raises(MlflowException):
        alias_key(folder, name, "champion")
    decision = read_json(folder / f"{name}-promotion" / "promotion.json")
    assert (decision["decision"], decision["had_champion"]) == ("refused", False)
    assert [check["name"] for check in decision["checks"]][:3] == [
        "looks at the hold-out", "hold-out groups", "macro-F1",
    ]  # fmt: skip


def test_when_every_bound_holds_it_promotes_and_the_registry_holds_bundle_and_evaluation(
    chain: Chain, folder: Path, name: str
) -> None:
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name})
    summary = decide(chain, folder, config, evaluation, f"{name}-promotion")
    assert (summary.decision, summary.alias, summary.reason) == ("promoted", "champion", "every bound holds")
    version = client(folder).get_model_version_by_alias(name, "champion")
    run = client(folder).get_run(version.run_id)
    low = read_json(evaluation / "metrics.json")["arms"]["supervised"]["macro_f1"]["low"]
    assert run.data.metrics["macro_f1_low"] == pytest.approx(low)
    assert run.data.params["decision"] == "promoted"
    fetched = client(folder).download_artifacts(version.run_id, "bundle", str(folder))
    assert (Path(fetched) / "bundle.json").read_bytes() == (chain["bundle"] / "bundle.json").read_bytes()


def test_a_second_model_is_held_against_the_champion_paired_and_refused_when_worse(
    chain: Chain, folder: Path, name: str
) -> None:
    config = EASY.model_copy(update={"model_name": name})
    first, worse, equal = (
        new_evaluation(chain, folder, f"{name}-{mark}", wrong) for mark, wrong in (("a", 2), ("b", 14), ("c", 2))
    )
    assert decide(chain, folder, config, first, f"{name}-1").decision == "promoted"
    summary = decide(chain, folder, config, worse, f"{name}-2")
    assert (summary.decision, summary.alias) == ("refused", "challenger")
    assert "against the champion, macro-F1 changes by -" in summary.reason
    assert alias_key(folder, name, "champion") == f"{name}-a"
    assert alias_key(folder, name, "challenger") == f"{name}-b"
    assert decide(chain, folder, config, equal, f"{name}-3").decision == "promoted"
    assert alias_key(folder, name, "champion") == f"{name}-c"
    decision = read_json(folder / f"{name}-3" / "promotion.json")
    assert decision["had_champion"] is True
    against = next(check for check in decision["checks"] if check["name"] == "against the champion")
    assert against["value"] == 0  # the same predictions, the same mistakes: no difference at all
    assert decision["tests"]["mcnemar"] == {"only_challenger": 0, "only_champion": 0, "n": 12, "p_value": 1.0}
    (area,) = decision["tests"]["delong"]
    assert (area["difference"], area["p_value"], area["groups"]) == (0.0, 1.0, 12)


def test_a_champion_that_fails_stricter_bounds_stays_and_the_decision_says_so(
    chain: Chain, folder: Path, name: str
) -> None:
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    easy = EASY.model_copy(update={"model_name": name})
    assert decide(chain, folder, easy, evaluation, f"{name}-1").decision == "promoted"
    summary = decide(chain, folder, easy.model_copy(update={"min_f1": 1.0}), evaluation, f"{name}-2")
    assert (summary.decision, summary.alias) == ("refused", "champion")
    assert summary.reason.startswith("the champion no longer meets the bounds: the lower bound of macro-F1 is")
    assert summary.reason.endswith("it stays champion until another model takes its place")
    decision = read_json(folder / f"{name}-2" / "promotion.json")
    assert (decision["had_champion"], decision["stays_champion"]) == (False, True)
    assert alias_key(folder, name, "champion") == f"{name}-a"
    with pytest.raises(MlflowException):
        alias_key(folder, name, "challenger")
    (version,) = versions(folder, name)
    assert version.tags[DECISION_TAG] == "refused"
    assert decide(chain, folder, easy, evaluation, f"{name}-3").decision == "promoted"
    assert versions(folder, name)[0].tags[DECISION_TAG] == "promoted"


def test_a_champion_of_other_classes_is_not_compared_and_the_reason_names_them(
    chain: Chain, folder: Path, name: str
) -> None:
    config = EASY.model_copy(update={"model_name": name})
    first, second = (new_evaluation(chain, folder, f"{name}-{mark}", wrong=1) for mark in "ab")
    assert decide(chain, folder, config, first, f"{name}-1").decision == "promoted"
    bundle = shutil.copytree(chain["bundle"], folder / f"{name}-bundle")
    write_json(bundle / "classes.json", {"classes": ["normal", "lesion"], "positive_class": "lesion"})
    seal = read_json(bundle / "bundle.json")
    seal["files"]["classes.json"] = file_digest(bundle / "classes.json")
    write_json(bundle / "bundle.json", seal)
    write_json(bundle / "artifact.json", read_json(bundle / "artifact.json") | {"key": name})
    reseal(bundle)
    output = folder / f"{name}-2"
    summary = promote(config, catalog=chain["catalog"], bundle=bundle, evaluation=second, output=output)
    assert (summary.decision, summary.alias) == ("refused", "challenger")
    assert "the champion tells apart lesion, normal and the challenger normal, lesion, in this order" in summary.reason
    assert alias_key(folder, name, "champion") == f"{name}-a"


def test_done_again_under_the_same_key_it_adds_no_version(chain: Chain, folder: Path, name: str) -> None:
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)
    config = EASY.model_copy(update={"model_name": name})
    first = decide(chain, folder, config, evaluation, f"{name}-promotion")
    payload = (folder / f"{name}-promotion" / "promotion.json").read_bytes()
    assert decide(chain, folder, config, evaluation, f"{name}-promotion") == first  # found
    shutil.rmtree(folder / f"{name}-promotion")
    assert decide(chain, folder, config, evaluation, f"{name}-promotion") == first  # made again
    assert (folder / f"{name}-promotion" / "promotion.json").read_bytes() == payload
    assert len(versions(folder, name)) == 1


@pytest.mark.parametrize("wrong", [1, 14])
def test_killed_between_registering_and_committing_it_ends_in_the_same_decision(
    wrong: int, chain: Chain, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undisturbed and killed promotions of the same two models, each in a registry of its own."""
    payloads = []
    for run, killed in (("whole", False), ("killed", True)):
        forget_looks(folder)
        config = EASY.model_copy(update={"model_name": f"{name}-{run}"})
        champion = new_evaluation(chain, folder, f"{name}-{run}-a", wrong=3)
        evaluation = new_evaluation(chain, folder, f"{name}-{run}-b", wrong=wrong)
        decide(chain, folder, config, champion, f"{name}-{run}-1")
        if killed:
            register = Registry.register

            def dies(self: Registry, *rest: Any, register: Any = register) -> None:
                register(self, *rest)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(Registry, "register", dies)
                with pytest.raises(KeyboardInterrupt):
                    decide(chain, folder, config, evaluation, f"{name}-{run}-2")
            assert not (folder / f"{name}-{run}-2").exists()
        decide(chain, folder, config, evaluation, f"{name}-{run}-2")
        payloads.append((folder / f"{name}-{run}-2" / "promotion.json").read_text().replace(f"{name}-{run}", name))
        assert len(versions(folder, f"{name}-{run}")) == 2
    assert payloads[0] == payloads[1]
    assert ('"decision": "promoted"' in payloads[0]) == (wrong == 1)


def test_a_registry_that_cannot_be_asked_is_not_one_without_a_champion(
    chain: Chain, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = new_evaluation(chain, folder, f"{name}-a", wrong=1)

    def down(*_: Any) -> None:
        raise MlflowException("the server is down")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", down)
    with pytest.raises(MlflowException, match="down"):
        decide(chain, folder, EASY.model_copy(update={"model_name": name}), evaluation, f"{name}-promotion")
    assert not versions(folder, name)


def test_a_group_across_the_splits_is_refused(chain: Chain, folder: Path, name: str) -> None:
    catalog = shutil.copytree(chain["catalog"], folder / f"{name}-catalog")
    manifest = read_table(catalog, "manifest")
    leaking = manifest.assign(group_id=manifest["group_id"].where(manifest.index > 0, manifest["group_id"].iloc[-1]))
    leaking.loc[0, "split"], leaking.loc[len(leaking) - 1, "split"] = "train", "test"
    write_table(catalog, "manifest", leaking)
    with pytest.raises(LeakageError):
        promote(EASY, catalog=catalog, **chain.inputs("bundle", "evaluation"), output=folder / f"{name}-promotion")
