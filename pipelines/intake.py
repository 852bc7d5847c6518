"""From an archive to the queue for the clinicians."""

from kfp import dsl

from pipelines.graph import Settings, closing_part, intake_part, publish_part


@dsl.pipeline(name="intake", description="From an archive to the queue for the clinicians")
def intake(
    ingest: str,
    validate: str,
    pretrain: str,
    embed: str,
    triage: str,
    acquire: str,
    label: str,
    account: str,
    report: str,
    embed_parts: list[str] = ["1/1"],  # noqa: B006, RUF100  KFP takes the default from here
    source_version: str = "",
    run_folder: str = "",
    code: str = "",
) -> None:
    """Ingest, validate, pretrain, embed, triage, acquire, publish, account and report; each parameter is a section."""
    settings = Settings(run_folder, code)
    configs = {
        "ingest": ingest,
        "validate": validate,
        "pretrain": pretrain,
        "embed": embed,
        "triage": triage,
        "acquire": acquire,
        "account": account,
        "report": report,
    }
    made = intake_part(settings, configs, source_version, embed_parts)
    closing_part(settings, configs, made | publish_part(settings, label, made))
