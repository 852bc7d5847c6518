import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.base import IMAGE
from scanloop import __version__
from scanloop.config_file import load_config

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "components", "pipelines", "serving", "monitoring", "benchmarks", "tests")
MOST_LINES_A_FILE, MOST_LINES_A_FUNCTION = 300, 50

LONG_FUNCTIONS = {
    "components/account.py:account": "a port for every artifact, named three times",
    "components/report.py:report": "a port for every artifact, named three times in six statements",
    "serving/__main__.py:serve": "an option each, documented where it is declared",
}

SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30}|-----BEGIN [A-Z ]*PRIVATE KEY|xox[bp]-[0-9]|"
    r"(?:password|passwd|secret_key|api_key)\s*[:=]\s*[\"'][^\"'${}]{6,}[\"']",
    re.IGNORECASE,
)


def python_files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def text_files() -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and b"\0" not in path.read_bytes()[:4096]:
            yield path


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of every function, without its decorators and its docstring: the ports are described there."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node):
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            yield node.name, lines


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def make_targets() -> dict[str, str]:
    """Targets of the Makefile with their help, "" where there is none."""
    found = re.findall(r"^([a-z][a-z-]*):(?!=)[^#\n]*(?:## (.*))?$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return dict(found)


def requirement_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return match[0].lower().replace("_", "-")


def dockerfile_stages() -> dict[str, str]:
    parts = re.split(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_no_file_has_more_than_300_lines() -> None:
    long = {name_of(path) for path in python_files() if len(path.read_text().splitlines()) > MOST_LINES_A_FILE}
    assert long == set()


def test_no_function_has_more_than_50_lines_without_a_reason() -> None:
    long = {
        f"{name_of(path)}:{name}"
        for path in python_files()
        for name, lines in functions_of(path)
        if lines > MOST_LINES_A_FUNCTION
    }
    assert long - set(LONG_FUNCTIONS) == set()
    assert set(LONG_FUNCTIONS) - long == set(), "a reason without its function"


def test_no_file_is_a_drawer_for_everything() -> None:
    assert [path for path in python_files() if path.stem in {"utils", "helpers", "common", "misc"}] == []


def test_the_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    direct = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {requirement_name(line) for line in lines if re.match(r"^[A-Za-z0-9._-]+==[^=]+$", line)}
    assert {requirement_name(one) for one in direct} - {"scanloop"} - pinned == set()
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []


def test_all_extras_are_in_all() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(everything.removeprefix("scanloop[").removesuffix("]").split(",")) == set(extras) - {"all"}


@pytest.mark.parametrize("stage", ["compute", "labelling", "serving", "torchserve"])
def test_an_image_is_healthy_or_says_so_and_runs_as_nobody_special(stage: str) -> None:
    text = dockerfile_stages()[stage]
    assert "\nHEALTHCHECK " in text
    (user,) = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert user.split(":")[0] not in {"0", "root"}
    assert text.rindex("\nRUN ") < text.index("\nUSER "), "what is installed belongs to root"
    assert "ENTRYPOINT [" in text


def test_the_image_copies_only_what_is_there() -> None:
    for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name


def test_every_images_name_holds_python_because_kubeflows_local_runner_looks_for_it() -> None:
    tags = re.findall(r"--tag (\S+)", (ROOT / "Makefile").read_text())
    assert len(tags) == 4
    assert all("python" in tag for tag in [*tags, IMAGE])


def test_make_builds_the_image_that_the_components_name() -> None:
    makefile = (ROOT / "Makefile").read_text()
    default = re.findall(r"^IMAGE \?= (\S+)$", makefile, re.MULTILINE)
    assert f"{default[0]}/compute-python:{__version__}" == IMAGE
    assert "--tag $(IMAGE)/compute-python:$(VERSION)" in makefile


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    stated = [path for path in python_files() if re.search(r'^__version__ = "', path.read_text(), re.MULTILINE)]
    assert [name_of(path) for path in stated] == ["src/scanloop/__init__.py"]
    assert __version__ not in (ROOT / "Dockerfile").read_text()
    assert __version__ not in (ROOT / "Makefile").read_text()


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = make_targets()
    assert {"setup", "demo", "run", "test", "check", "compile", "bench", "integration", "image"} <= set(targets)
    for target, help_text in targets.items():
        assert help_text, f"{target} has no help"
        assert f"make {target} " in shown
        assert help_text in shown


def test_every_target_that_is_no_file_is_phony() -> None:
    (line,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(line.split()) == set(make_targets())


def test_pre_commit_and_ci_call_make() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [hook["entry"] for repository in hooks["repos"] for hook in repository["hooks"]] == ["make check"]
    assert "make check\nmake test\n" in (ROOT / ".ci" / "run").read_text()
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]
    run = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    proofs = {name: [line for line in lines if "apt-get" not in line] for name, lines in run.items()}
    assert proofs == {"test": [".ci/run"], "integration": ["make integration"], "demo": ["make demo"]}
    tools = [any("prometheus" in line for line in run[name]) for name in ("test", "integration")]
    assert all(tools), "without promtool and Prometheus the tests of the alerts are skipped"


def readme_blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def readme_configurations() -> dict[str, str]:
    """Configurations that the README shows, by the path in their first line."""
    return {block.splitlines()[0].removeprefix("# "): block for block in readme_blocks("yaml")}


def readme_commands() -> list[str]:
    lines = [line.strip() for block in readme_blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line.partition(" #")[0] for line in lines if line]


def test_the_readmes_make_commands_name_targets_that_exist() -> None:
    for command in readme_commands():
        if command.startswith("make "):
            assert command.split()[1] in make_targets(), command


def readme_module_commands() -> list[tuple[str, list[str]]]:
    """Module and arguments of each `python -m`."""
    commands = [shlex.split(command) for command in readme_commands() if " -m " in command]
    return [(words[words.index("-m") + 1], words[words.index("-m") + 2 :]) for words in commands]


def test_the_readme_shows_a_command_of_every_module_that_has_one() -> None:
    assert {module for module, _ in readme_module_commands()} == {
        path.parent.name for path in ROOT.glob("*/__main__.py")
    }


def test_the_readmes_python_commands_are_understood() -> None:
    """Subcommands and options exist, configurations are there; nothing is run."""
    for module, rest in readme_module_commands():
        command = shlex.join([module, *rest])
        subcommand = [rest[0]] if module == "pipelines" else []
        shown = subprocess.run(
            [sys.executable, "-m", module, *subcommand, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, command
        for option in (word for word in rest if word.startswith("--")):
            assert option.partition("=")[0] in shown.stdout, command
        for name in (word for word in rest if word.startswith("configs/")):
            assert (ROOT / name).is_file() or name in readme_configurations(), command


def test_the_readmes_configurations_hold_no_fault(tmp_path: Path) -> None:
    assert readme_configurations()
    for name, text in readme_configurations().items():
        path = tmp_path / Path(name).name
        path.write_text(text)
        assert load_config(path).name == path.stem


def test_no_file_holds_a_secret() -> None:
    holders = [name_of(path) for path in text_files() if SECRET.search(path.read_text(errors="replace"))]
    assert holders == []
