"""The grid of a study: each cell's figures in a file of its own, so that a run that is killed loses one cell."""

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scanloop.artifacts import read_json, write_bytes, write_json
from scanloop.studies.request import StudyRequest
from scanloop.studies.study import Bench, Cell, Keys, Study

TIMES = "times.jsonl"
"""Seconds of each cell, a line each; a machine's facts, no result."""


class Grid:
    """The cells of a study in a folder."""

    def __init__(self, name: str, study: Study, request: StudyRequest, folder: Path) -> None:
        self._study, self._request, self._folder = study, request, folder
        keys = Keys(name, request)
        self.cells: dict[str, Cell] = {keys.of(cell): cell for cell in study.cells(study, request)}

    def missing(self) -> dict[str, Cell]:
        """Cells without a result, by key."""
        return {key: cell for key, cell in self.cells.items() if not self._path(key).is_file()}

    def seconds_left(self) -> float:
        """About how long the missing cells will take: the mean of those measured here, or the study's guess."""
        path = self._folder / TIMES
        lines = path.read_text().splitlines() if path.is_file() else []
        taken = [float(json.loads(line)["seconds"]) for line in lines]
        return len(self.missing()) * (sum(taken) / len(taken) if taken else self._study.guess_seconds)

    def run(self) -> None:
        """Measure the cells that are missing; each result is there at once, whole."""
        bench = Bench(self._request, self._folder / "cache")
        bench.cache.mkdir(parents=True, exist_ok=True)
        todo = self.missing()
        with tqdm(total=len(self.cells), initial=len(self.cells) - len(todo), desc="study", unit="cell") as bar:
            for key, cell in todo.items():
                bar.set_postfix_str(cell.name)
                start = time.perf_counter()
                write_json(self._path(key), {"cell": cell, "figures": self._study.measure(cell, bench)})
                self._note(key, time.perf_counter() - start)
                bar.update()

    def results(self) -> list[dict[str, Any]]:
        """Cells with their figures, in the order of the grid; missing ones are left out."""
        return [read_json(self._path(key)) for key in self.cells if self._path(key).is_file()]

    def _path(self, key: str) -> Path:
        return self._folder / "cells" / f"{key}.json"

    def _note(self, key: str, seconds: float) -> None:
        path = self._folder / TIMES
        noted = path.read_bytes() if path.is_file() else b""
        write_bytes(path, noted + json.dumps({"cell": key, "seconds": round(seconds, 3)}).encode() + b"\n")
