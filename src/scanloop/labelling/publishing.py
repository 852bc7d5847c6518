"""A queue into a store under the configuration: double reading, and the limits of annotations."""

from decimal import Decimal
from pathlib import Path

from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.limits import Limits
from scanloop.labelling.predicted import model_labels
from scanloop.labelling.store import Store
from scanloop.labelling.waves import Published, publish
from scanloop.sections.labelling import LabelConfig


def publish_queue(
    store: Store, queue: Path, catalog: Path, config: LabelConfig, budget_eur: Decimal | None = None
) -> Published:
    """Publish a queue as `waves.publish` does, as the section `label` says.

    Args:
        store: The label store.
        queue: Artifact of `acquire`.
        catalog: Artifact of `ingest` that the queue was made from.
        config: Which images are read more than once, and the limits.
        budget_eur: Most that the readings may cost together; the queue's budget by default.

    Raises:
        ArtifactError: As `waves.publish`.
        LabellingError: As `waves.publish`.
        BudgetError: A limit is reached.
    """
    policy = DoubleReading(config.double_reading, config.readings, config.share, config.seed)
    said = model_labels(queue, catalog) if policy.which == "disagreement" else None
    limits = Limits(config.total_limit, config.quarter_limit)
    return publish(store, queue, catalog, policy=policy, model_labels=said, budget_eur=budget_eur, limits=limits)
