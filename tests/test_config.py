import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from scanloop import config as module
from scanloop.config import STEPS, NpzSource, RunConfig, Section, SyntheticSource
from scanloop.config_file import load_config
from scanloop.errors import ConfigError

ROOT = Path(__file__).parents[1]
LEAST = "ingest: {source: {kind: synthetic}}\n"
SECTIONS = sorted(
    (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ in {module.__name__, "scanloop.sources"}
    ),
    key=lambda section: section.__name__,
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def load(path: Path, text: str, *overrides: str) -> RunConfig:
    path.write_text(text)
    return load_config(path, overrides)


def faults(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, text, *overrides)
    return str(error.value)


def test_three_mistakes_are_one_error_that_lists_all_three_with_their_paths(written: Path) -> None:
    text = "ingest: {source: {kind: synthetic, slices: 5}}\ntriage: {k_max: two}\nembed: {batch_sise: 3}\n"
    message = faults(written, text)
    assert message.startswith(f"{written}: 3 faults\n")
    assert len(message.splitlines()) == 4
    for words in (
        "ingest.source.synthetic.slices: Input should be greater than or equal to 20 (given: 5)",
        "triage.k_max: Input should be a valid integer",
        "embed.batch_sise: Extra inputs are not permitted",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("triage: {k_max: 4}\n", "ingest: Field required"),
        (LEAST + "traige: {}\n", "traige: Extra inputs"),
        ("ingest: {source: {kind: dicomm}}\n", "dicomm"),
        (LEAST + "pretrain: {method: none}\n", "needs weights"),
        (LEAST + "triage: {k_min: 5, k_max: 3}\n", "k_min 5 is above k_max 3"),
        (LEAST + "acquire: {budget_eur: .inf}\n", "acquire.budget_eur: Input should be a finite number"),
        (LEAST + "promote: {min_f1: .nan}\n", "promote.min_f1"),
        (LEAST + "name: a b\n", "name: String should match"),
        ("ingest: {source: {kind: folder, path: x, patient_pattern: 'P[0-9]+'}}\n", "needs a group in parentheses"),
        ("ingest: {source: {kind: folder, path: x, patient_pattern: '('}}\n", "not a regular expression"),
        (LEAST + "triage:\n", "triage: Input should be a valid dictionary"),
        ("- a\n", "mapping"),
        ("a: [\n", "not a readable configuration"),
        (LEAST + "name: ${oc.env:SCANLOOP_SURELY_UNSET}\n", "SCANLOOP_SURELY_UNSET"),
        ("", "ingest: Field required"),
    ],
)
def test_each_mistake_is_named(written: Path, text: str, words: str) -> None:
    assert words in faults(written, text)


def test_a_missing_file_says_where_examples_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; the examples are in configs/"):
        load_config(tmp_path / "absent.yaml")


def test_a_folder_as_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_config(tmp_path)


def test_the_environment_is_read_and_its_default_stands_in(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ingest: {source: {kind: npz, path: '${oc.env:SCANLOOP_TEST_DATA,here}/a.npz'}}\n"
    monkeypatch.delenv("SCANLOOP_TEST_DATA", raising=False)
    source = load(written, text).ingest.source
    assert isinstance(source, NpzSource)
    assert source.path == "here/a.npz"
    monkeypatch.setenv("SCANLOOP_TEST_DATA", "/there")
    source = load(written, text).ingest.source
    assert isinstance(source, NpzSource)
    assert source.path == "/there/a.npz"


def test_overrides_win_and_are_checked_like_the_file(written: Path) -> None:
    found = load(written, LEAST + "triage: {k_max: 4}\n", "triage.k_max=5", "pseudo_label.cross_validation.folds=3")
    assert found.triage.k_max == 5
    assert found.pseudo_label.cross_validation.folds == 3
    assert "triage.k_maxx: Extra inputs" in faults(written, LEAST, "triage.k_maxx=5")
    assert "triage.k_max" in faults(written, LEAST, "triage.k_max")


def test_the_runs_seed_becomes_that_of_each_section_that_gives_none(written: Path) -> None:
    found = load(written, "seed: 7\n" + LEAST + "triage: {seed: 3}\nembed: {batch_size: 2}\n")
    seeds = {step: found.section(step).seed for step in STEPS}
    assert seeds == dict.fromkeys(STEPS, 7) | {"triage": 3}
    assert isinstance(found.ingest.source, SyntheticSource)
    assert found.ingest.source.seed == 7


def test_folds_take_the_seed_of_their_section_unless_they_bring_one(written: Path) -> None:
    text = "seed: 7\n" + LEAST + "pseudo_label: {seed: 3}\n"
    found = load(written, text)
    assert (found.pseudo_label.cross_validation.seed, found.retrain.cross_validation.seed) == (3, 7)
    found = load(written, text, "pseudo_label.cross_validation.seed=5", "retrain.cross_validation.folds=3")
    assert (found.pseudo_label.cross_validation.seed, found.retrain.cross_validation.seed) == (5, 7)


def test_the_seed_can_be_overridden(written: Path) -> None:
    assert load(written, "seed: 7\n" + LEAST, "seed=8").retrain.seed == 8


@pytest.mark.parametrize("seed", ["-1", "seven", "1.5"])
def test_a_wrong_seed_is_one_fault(written: Path, seed: str) -> None:
    message = faults(written, f"seed: {seed}\n" + LEAST)
    assert message.startswith(f"{written}: 1 fault\n")
    assert "  seed: " in message


def test_sections_do_not_change_after_they_are_checked(written: Path) -> None:
    found = load(written, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        found.triage.k_max = 9  # type: ignore[misc]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    found = load_config(path)
    assert found.name != "run"
    assert RunConfig.model_validate_json(found.model_dump_json(by_alias=True)) == found


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_has_a_reader(section: type[BaseModel]) -> None:
    """A field that nothing reads is a promise that nothing keeps."""
    if section is RunConfig:
        return  # its fields are read by name, through `section`
    source = ROOT / "src" / "scanloop"
    readers = "\n".join(path.read_text() for path in source.rglob("*.py") if path.name != "config.py")
    for name in section.model_fields:
        assert re.search(rf"\.{name}\b", readers) or re.search(rf'"{name}"', readers), f"{section.__name__}.{name}"


def test_every_step_has_a_section(written: Path) -> None:
    found = load(written, LEAST)
    for step in STEPS:
        assert isinstance(found.section(step), Section)
