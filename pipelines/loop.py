"""The whole loop in one run, with the oracle in the clinicians' place."""

from kfp import dsl

from components.oracle import oracle as oracle_task
from pipelines.graph import Settings, closing_part, improve_part, intake_part, watch_part


@dsl.pipeline(name="loop", description="The whole loop in one run, with hidden labels in the clinicians' place")
def loop(
    ingest: str,
    validate: str,
    pretrain: str,
    embed: str,
    triage: str,
    acquire: str,
    oracle: str,
    pseudo_label: str,
    retrain: str,
    evaluate: str,
    promote: str,
    detect_drift: str,
    account: str,
    report: str,
    embed_parts: list[str] = ["1/1"],  # noqa: B006, RUF100  KFP takes the default from here
    source_version: str = "",
    run_folder: str = "",
    code: str = "",
) -> None:
    """Every step once; each parameter is a section of the configuration as JSON."""
    settings = Settings(run_folder, code)
    configs = {
        "ingest": ingest,
        "validate": validate,
        "pretrain": pretrain,
        "embed": embed,
        "triage": triage,
        "acquire": acquire,
        "oracle": oracle,
        "pseudo_label": pseudo_label,
        "retrain": retrain,
        "evaluate": evaluate,
        "promote": promote,
        "detect_drift": detect_drift,
        "account": account,
        "report": report,
    }
    made = intake_part(settings, configs, source_version, embed_parts)
    made["labels"] = settings.task(oracle_task, oracle, catalog=made["catalog"], queue=made["queue"])
    made |= improve_part(settings, configs, made)
    made |= watch_part(settings, configs, made["evaluation"])
    closing_part(settings, configs, made)
