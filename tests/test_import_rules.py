import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("components", "pipelines", "serving", "monitoring")

PLANTED = {
    "folders": [
        ("scanloop imports pipelines", "src/scanloop/types.py", "import pipelines"),
        ("components import pipelines", "components/base.py", "import pipelines"),
        ("serving imports monitoring", "serving/metrics.py", "import monitoring"),
        ("monitoring imports components", "monitoring/runs.py", "from components import base"),
    ],
    "domain": [
        ("a step is reached from below", "src/scanloop/archive/decode.py", "import scanloop.steps.ingest"),
        ("siblings import one another", "src/scanloop/triage/clusters.py", "import scanloop.evaluation.metrics"),
        ("an import inside a function", "src/scanloop/errors.py", "def f() -> None:\n    import scanloop.config"),
        ("a module without a place", "src/scanloop/utils.py", "X = 1"),
        ("a package without a place", "src/scanloop/helpers/__init__.py", "X = 1"),
    ],
    "thin-components": [
        ("a component reaches the archive", "components/ingest.py", "import scanloop.archive.decode"),
        ("a component reaches learning", "components/base.py", "import scanloop.learning"),
    ],
    "small-serving": [
        ("serving reaches training", "serving/model.py", "import scanloop.learning.heads"),
        ("serving reaches a step", "serving/protocol.py", "import scanloop.steps.retrain"),
    ],
    "lookup-alone": [
        ("serving joins training sets", "serving/model.py", "import scanloop.features.training_set"),
    ],
    "no-platform": [
        ("the domain knows kfp", "src/scanloop/steps/ingest.py", "def f() -> None:\n    import kfp"),
        ("the domain knows Prometheus", "src/scanloop/money/ledger.py", "import prometheus_client"),
    ],
    "no-torch": [
        ("a metric needs torch", "src/scanloop/evaluation/metrics.py", "import torch"),
        ("money needs torch by a detour", "src/scanloop/artifacts.py", "def f() -> None:\n    import torch"),
    ],
}
CASES = [(contract, *planted) for contract, cases in PLANTED.items() for planted in cases]


def importlinter() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def contracts() -> dict[str, str]:
    """Name of each contract by its key."""
    parser = importlinter()
    sections = [section for section in parser.sections() if section.startswith("importlinter:contract:")]
    return {section.rpartition(":")[2]: parser[section]["name"] for section in sections}


def lint(folder: Path, plant: tuple[str, str] | None) -> subprocess.CompletedProcess[str]:
    """Verdict on a copy of the tree with one more line in one of its files."""
    python_only = shutil.ignore_patterns("__pycache__", "*.yaml", "*.j2", "*.css", "*.md")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=python_only)
    shutil.copytree(ROOT / "src" / "scanloop", folder / "src" / "scanloop", ignore=python_only)
    shutil.copy(ROOT / ".importlinter", folder)
    if plant:
        path = folder / plant[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"\n{plant[1]}\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}", "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Verdict by what was planted, "" for nothing; all at once, each costs seconds."""
    plants: dict[str, tuple[str, str] | None] = {"": None} | {title: (path, line) for _, title, path, line in CASES}
    folders = {title: tmp_path_factory.mktemp("tree") for title in plants}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(plants, pool.map(lint, folders.values(), plants.values()), strict=True))


def test_every_contract_has_a_planted_violation() -> None:
    assert set(contracts()) == set(PLANTED)


def test_the_tree_as_it_is_keeps_every_contract(verdicts: dict[str, subprocess.CompletedProcess[str]]) -> None:
    verdict = verdicts[""]
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    for name in contracts().values():
        assert f"{name} KEPT" in verdict.stdout


@pytest.mark.parametrize(("contract", "title"), [(contract, title) for contract, title, *_ in CASES])
def test_a_planted_violation_is_found_and_its_contract_named(
    verdicts: dict[str, subprocess.CompletedProcess[str]], contract: str, title: str
) -> None:
    verdict = verdicts[title]
    assert verdict.returncode != 0
    assert f"{contracts()[contract]} BROKEN" in verdict.stdout, verdict.stdout + verdict.stderr


def test_what_a_component_must_not_reach_is_everything_but_what_its_contract_names() -> None:
    forbidden = set(importlinter()["importlinter:contract:thin-components"]["forbidden_modules"].split())
    paths = (ROOT / "src" / "scanloop").iterdir()
    modules = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}
    allowed = {"steps", "artifacts", "config", "types", "errors"}
    assert forbidden == {f"scanloop.{name}" for name in modules - allowed}


def test_make_check_runs_the_linter_that_finds_them() -> None:
    assert "\t$(BIN)/lint-imports\n" in (ROOT / "Makefile").read_text()
