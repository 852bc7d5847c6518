"""Publish: the queue becomes tasks in the label store, where clinicians read them."""

from dataclasses import asdict, dataclass
from pathlib import Path

from scanloop.artifacts import count_rows, write_json
from scanloop.build import step
from scanloop.config import LabelConfig
from scanloop.errors import BudgetError


@dataclass(frozen=True)
class PublishSummary:
    """Wave and images that are asked for, or why there are none."""

    wave: int | None
    images: int
    why: str | None = None


@step("publication")
def publish(config: LabelConfig, *, catalog: Path, queue: Path, output: Path) -> PublishSummary:
    """Publish a queue in the label store that the configuration or SCANLOOP_LABEL_STORE names; once for each queue.

    Without a store, with an empty queue, or where a limit of annotations is reached, nothing is published, and the
    artifact says so.

    Args:
        config: Store, double reading and limits.
        catalog: Artifact of `ingest` that the queue was made from.
        queue: Artifact of `acquire`.
        output: Directory for `publication.json`.

    Raises:
        LabellingError: The store cannot be opened, or asks for other classes.
        ArtifactError: The queue is none, or its price is no whole number of cents.
    """
    found = _published(config, catalog, queue)
    write_json(output / "publication.json", asdict(found) | {"store": config.store})
    return found


def _published(config: LabelConfig, catalog: Path, queue: Path) -> PublishSummary:
    from scanloop.labelling.address import named_store, store_address
    from scanloop.labelling.publishing import publish_queue
    from scanloop.labelling.store import open_store

    if not named_store(config.store):
        return PublishSummary(None, 0, "no label store is named: set label.store, or publish with scanloop label")
    if not count_rows(queue, "queue.parquet"):
        return PublishSummary(None, 0, "the queue is empty")
    store = open_store(store_address(None, config.store))
    try:
        found = publish_queue(store, queue, catalog, config)
    except BudgetError as refused:
        return PublishSummary(None, 0, str(refused))
    finally:
        store.engine.dispose()
    return PublishSummary(found.wave, found.tasks)
