"""The parts of which the pipelines are made: each takes the configuration's sections and returns its artifacts."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.account import account
from components.acquire import acquire
from components.detect_drift import detect_drift
from components.embed import embed
from components.embed_part import embed_part
from components.evaluate import evaluate
from components.ingest import ingest
from components.pretrain import pretrain
from components.promote import promote
from components.pseudo_label import pseudo_label
from components.publish import publish
from components.report import report
from components.retrain import retrain
from components.triage import triage
from components.validate import validate


@dataclass(frozen=True)
class Settings:
    """What every task is given beside its section and its inputs.

    Attributes:
        run_folder: Folder of a local run; "" in the cluster.
        code: Digest of the submitter's library; "" checks nothing.
    """

    run_folder: Any
    code: Any

    def task(self, component: Any, config: Any, **inputs: Any) -> Any:
        """Output artifact of a component's task."""
        return component(config=config, run_folder=self.run_folder, code=self.code, **inputs).outputs["output"]


def intake_part(settings: Settings, configs: dict[str, Any], source_version: Any, embed_parts: Any) -> dict[str, Any]:
    """From the archive to the clinicians' queue; nothing is spent on a catalog that violates an expectation.

    Args:
        settings: What every task is given.
        configs: Sections of the configuration.
        source_version: Version of the archive.
        embed_parts: "K/N" of each task that embeds a range of shards.
    """
    catalog = settings.task(ingest, configs["ingest"], source_version=source_version)
    checked = validate(config=configs["validate"], catalog=catalog, run_folder=settings.run_folder, code=settings.code)
    trained = pretrain(
        config=configs["pretrain"], catalog=catalog, run_folder=settings.run_folder, code=settings.code
    ).after(checked)
    encoder = trained.outputs["output"]
    with dsl.ParallelFor(embed_parts) as part:
        done = embed_part(
            config=configs["embed"],
            part=part,
            catalog=catalog,
            encoder=encoder,
            run_folder=settings.run_folder,
            code=settings.code,
        )
    parts = dsl.Collected(done.output)
    embeddings = settings.task(embed, configs["embed"], catalog=catalog, encoder=encoder, parts=parts)
    triaged = settings.task(triage, configs["triage"], catalog=catalog, embeddings=embeddings)
    return {
        "catalog": catalog,
        "validation": checked.outputs["output"],
        "encoder": encoder,
        "embeddings": embeddings,
        "triage": triaged,
        "queue": settings.task(acquire, configs["acquire"], catalog=catalog, embeddings=embeddings, triage=triaged),
    }


def publish_part(settings: Settings, config: Any, made: dict[str, Any]) -> dict[str, Any]:
    """The queue before the clinicians."""
    return {"publication": settings.task(publish, config, catalog=made["catalog"], queue=made["queue"])}


def improve_part(settings: Settings, configs: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """From the labels to a decision about a model, with the supervised baseline beside it."""
    catalog, embeddings, labels = given["catalog"], given["embeddings"], given["labels"]
    common = {"catalog": catalog, "embeddings": embeddings, "triage": given["triage"], "labels": labels}
    inputs = common | {"encoder": given["encoder"]}
    pseudo_labels = settings.task(pseudo_label, configs["pseudo_label"], **common)
    baseline = settings.task(retrain, configs["retrain"], name="baseline", **inputs)
    bundle = settings.task(retrain, configs["retrain"], name="bundle", pseudo_labels=pseudo_labels, **inputs)
    evaluation = settings.task(
        evaluate,
        configs["evaluate"],
        catalog=catalog,
        labels=labels,
        pseudo_labels=pseudo_labels,
        bundle=bundle,
        baseline=baseline,
        embeddings=embeddings,
        triage=given["triage"],
    )
    promotion = settings.task(promote, configs["promote"], catalog=catalog, bundle=bundle, evaluation=evaluation)
    return {
        "pseudo_labels": pseudo_labels,
        "baseline": baseline,
        "bundle": bundle,
        "evaluation": evaluation,
        "promotion": promotion,
    }


def watch_part(settings: Settings, configs: dict[str, Any], evaluation: Any, current: Any = None) -> dict[str, Any]:
    """Whether the confidence on the pool still looks like that on the hold-out."""
    inputs = {"evaluation": evaluation} | ({"current": current} if current is not None else {})
    return {"drift": settings.task(detect_drift, configs["detect_drift"], **inputs)}


def closing_part(
    settings: Settings, configs: dict[str, Any], made: dict[str, Any], given: dict[str, Any] | None = None
) -> None:
    """What the run cost, and the page that tells it; the last two tasks of every pipeline.

    Args:
        settings: What every task is given.
        configs: Sections of the configuration.
        made: Artifacts of this run.
        given: Artifacts of an earlier run: the page shows them, and they are not charged again.
    """
    told = (given or {}) | made
    spent = settings.task(account, configs["account"], imported=sorted(given or {}), **told)
    settings.task(report, configs["report"], account=spent, **told)
