"""What starts the next round by itself: a wave that was read, and clusters that have left the labels behind."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.cluster.submit import Target, submit
from pipelines.local import run_locally
from pipelines.registry import IMPORTED, request
from scanloop.config import RunConfig
from scanloop.provenance import library_digest
from scanloop.steps.acquire import acquire
from scanloop.steps.publish import publish

if TYPE_CHECKING:
    from scanloop.labelling.store import Store


class Place(Protocol):
    """Where rounds run."""

    def improve(self, store: "Store", config: RunConfig, wave: str) -> str:
        """Learn from all labels that were read up to the end of a wave; where the run is."""
        ...

    def ask(self, config: RunConfig) -> str:
        """Have the next images chosen and published; what came of it."""
        ...


@dataclass(frozen=True)
class Here:
    """The rounds run on this machine.

    Attributes:
        folder: Of the run: its artifacts, and what the rounds make.
    """

    folder: Path

    def improve(self, store: "Store", config: RunConfig, wave: str) -> str:  # noqa: ARG002  as `There`
        """Learn from all labels that were read; the folder of the run."""
        from scanloop.labelling.export import export

        export(store, self.folder / "labels")
        earlier = {name: str(self.folder / name) for name in IMPORTED["improve"]}
        run_locally(request("improve", config, earlier, {"run_folder": str(self.folder)}), self.folder)
        return str(self.folder)

    def ask(self, config: RunConfig) -> str:
        """Choose the next images with the labels at hand, and publish them."""
        labels, queue = self.folder / "labels", self.folder / "next_queue"
        given = {name: self.folder / name for name in ("catalog", "embeddings", "triage")}
        acquire(config.acquire, **given, labels=labels if labels.is_dir() else None, output=queue)
        output = self.folder / "next_publication"
        found = publish(config.label, catalog=given["catalog"], queue=queue, output=output)
        return found.why or f"wave {found.wave}, {found.images} images"


@dataclass(frozen=True)
class There:
    """The rounds run on a Kubeflow Pipelines server.

    Attributes:
        target: The server.
        artifacts: URI of each artifact that `improve` continues from, without its labels.
        labels: Address below which exported labels are put, one folder a wave.
        source_version: Version of the archive, for `intake`.
    """

    target: Target
    artifacts: dict[str, str]
    labels: str
    source_version: str

    def improve(self, store: "Store", config: RunConfig, wave: str) -> str:
        """Put the labels where the server finds them, and submit `improve`; the URL of the run."""
        import tempfile

        from scanloop.labelling.export import export
        from scanloop.storage.store import open_store
        from scanloop.storage.transfer import push

        address = f"{self.labels.rstrip('/')}/wave-{wave}"
        with tempfile.TemporaryDirectory() as scratch:
            export(store, Path(scratch) / "labels")
            push(Path(scratch) / "labels", open_store(address))
        given = self.artifacts | {"labels": address}
        return submit(request("improve", config, given, {"code": library_digest()}), self.target)

    def ask(self, config: RunConfig) -> str:
        """Submit `intake`, which ends with a queue published; the URL of the run."""
        settings = {"code": library_digest(), "source_version": self.source_version}
        return submit(request("intake", config, {}, settings), self.target)


def tick(
    store: "Store",
    config: RunConfig,
    place: Place,
    triages: tuple[Path, Path] | None,
    say: Callable[[str], None],
) -> bool:
    """Do what is due, and say what is not and why; whether anything was.

    A run is written down after it was started: a process that dies between the two starts it again, and finds here,
    or there in KFP's cache, what the first made.

    Args:
        store: The label store.
        config: Of the runs.
        place: Where they run.
        triages: Artifacts of `triage`: that of the labels' archive, and today's.
        say: Takes a line.
    """
    from scanloop.labelling import demand

    acted = False
    learning = demand.learning_due(store)
    say(learning.why)
    if learning.is_due and learning.subject is not None:
        run = place.improve(store, config, learning.subject)
        demand.note_learnt(store, int(learning.subject), run)
        say(f"improve: {run}")
        acted = True
    if triages is not None:
        wave = demand.wave_due(store, *triages, config.label.ari_fall)
        say(wave.why)
        if wave.is_due and wave.subject is not None:
            asked = place.ask(config)
            demand.note_requested(store, wave.subject, wave.why)
            say(f"a wave was asked for: {asked}")
            acted = True
    return acted


def watch_store(work: Callable[[], bool], every_seconds: float | None) -> bool:
    """Do the work once, or again and again until it is interrupted; whether the last time anything was due."""
    while True:
        acted = work()
        if every_seconds is None:
            return acted
        time.sleep(every_seconds)
