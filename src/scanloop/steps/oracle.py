"""Oracle: in the clinicians' place, answers a queue from hidden labels, for sets that have them."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from scanloop.artifacts import read_table, write_json, write_table
from scanloop.build import step
from scanloop.config import OracleConfig


@dataclass(frozen=True)
class OracleSummary:
    """How many of the queued images were answered, and the price of the answers."""

    answered: int
    queued: int
    price_eur: float


@step("labels")
def oracle(config: OracleConfig, *, catalog: Path, queue: Path, output: Path) -> OracleSummary:
    """Labels of the queued images whose truth the archive hides; none where it hides nothing.

    A set without hidden labels keeps its queue open for clinicians, and the run goes on with the labels that it has.

    Args:
        config: Time stamped on the answers.
        catalog: Artifact of `ingest`, with its hidden labels.
        queue: Artifact of `acquire`.
        output: Directory for the labels.
    """
    wanted = read_table(queue, "queue.parquet")
    answers = wanted.merge(read_table(catalog, "hidden_labels.parquet"), on="slice_id", how="inner").sort_values("rank")
    frame = answers[["slice_id", "label", "purpose"]].assign(
        readers=1, agreement=1.0, adjudicated=False, as_of=config.as_of
    )
    write_table(output, "labels.parquet", frame)
    price = float(sum(Decimal(str(price)) for price in answers["price"]))
    source = "hidden labels" if len(frame) else "none: the set hides no labels, its queue waits for clinicians"
    facts = {"answered": len(frame), "queued": len(wanted), "price_eur": price, "source": source}
    write_json(output / "labels.json", facts)
    return OracleSummary(len(frame), len(wanted), price)
