"""What a study is: a question, its cells, and how one cell is measured."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from scanloop.errors import ConfigError
from scanloop.provenance import code_digest, digest, file_digest
from scanloop.studies import questions
from scanloop.studies.datasets import StudySet, load_set, locate
from scanloop.studies.request import StudyRequest


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    Attributes:
        dataset: Set.
        arm: Way that is tried.
        percent: Labels of the training part that are known, in percent.
        seed: Of the draw of labels and of everything random.
    """

    dataset: str
    arm: str
    percent: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell, fit for a file."""
        return f"{self.dataset}-{self.arm}-{self.percent:g}pct-seed{self.seed}"


@dataclass
class Bench:
    """What a cell is measured with.

    Attributes:
        request: Grid and settings.
        cache: Folder for what several cells share, such as vectors; its files' names must say all they depend on.
    """

    request: StudyRequest
    cache: Path
    _sets: dict[str, StudySet] = field(default_factory=dict)

    def data(self, name: str) -> StudySet:
        """A set, read once."""
        if name not in self._sets:
            self._sets[name] = load_set(name, self.request)
        return self._sets[name]


def product(study: "Study", request: StudyRequest) -> list[Cell]:
    """Every arm on every set with every share of labels, seed after seed.

    Raises:
        ConfigError: An arm that is asked for is none of the study's.
    """
    arms = study.arms(request)
    if unknown := [arm for arm in request.arms if arm not in arms]:
        raise ConfigError(f"no arm {', '.join(unknown)}; there are {', '.join(arms)}")
    return [
        Cell(dataset, arm, percent, seed)
        for dataset in request.datasets
        for seed in range(request.seed, request.seed + request.seeds)
        for arm in request.arms or arms
        for percent in request.percents
    ]


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        question: In one sentence.
        arms: Ways that are tried, in the order of the table, given a request.
        measure: Figures of one cell, by name; the same cell, request and data give the same figures.
        metrics: Figures that are tabled, drawn and compared.
        baseline: Arm that the others are compared with, pair by pair of the same seed.
        guess_seconds: About how long a cell takes, for `--dry-run` before any was measured.
        cells: The grid.
    """

    question: str
    arms: Callable[[StudyRequest], tuple[str, ...]]
    measure: Callable[[Cell, Bench], Mapping[str, float]]
    metrics: tuple[str, ...]
    baseline: str
    guess_seconds: float
    cells: Callable[["Study", StudyRequest], list[Cell]] = product


def study_names() -> list[str]:
    """Names of all studies."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(questions.__path__))


def find_study(name: str) -> Study:
    """A study by its name.

    Raises:
        ConfigError: There is no such study.
    """
    if name not in study_names():
        raise ConfigError(f"no study {name!r}; there are {', '.join(study_names())}")
    found: Study = importlib.import_module(_module(name)).STUDY
    return found


@dataclass(frozen=True)
class Keys:
    """Keys of a study's cells: a result is used again only where nothing that it depends on has changed."""

    name: str
    request: StudyRequest

    def of(self, cell: Cell) -> str:
        """Key of a cell: its name, and a digest of settings, data, weights and code."""
        parts = [self._shared, self._data[cell.dataset], cell.name]
        return f"{cell.name}-{digest(parts)[:12]}"

    @cached_property
    def _shared(self) -> list[object]:
        weights = Path(self.request.weights or "")
        stored = file_digest(weights) if weights.is_file() else None
        return [self.name, self.request.settings, stored, code_digest(_module(self.name))]

    @cached_property
    def _data(self) -> dict[str, str]:
        return {name: file_digest(locate(name, self.request)) for name in self.request.datasets}


def _module(name: str) -> str:
    return f"{questions.__name__}.{name.replace('-', '_')}"
