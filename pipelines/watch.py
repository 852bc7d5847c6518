"""Whether the model still sees what it was measured on."""

from kfp import dsl

from pipelines.graph import Settings, closing_part, watch_part


@dsl.pipeline(name="watch", description="Whether the model still sees what it was measured on")
def watch(
    catalog: str,
    evaluation: str,
    current: str,
    detect_drift: str,
    account: str,
    report: str,
    run_folder: str = "",
    code: str = "",
) -> None:
    """Detect drift, account and report; catalog, evaluation (the reference) and current are URIs of artifacts."""
    settings = Settings(run_folder, code)
    configs = {"detect_drift": detect_drift, "account": account, "report": report}
    given = {
        "catalog": dsl.importer(artifact_uri=catalog, artifact_class=dsl.Dataset).output,
        "evaluation": dsl.importer(artifact_uri=evaluation, artifact_class=dsl.Artifact).output,
    }
    now = dsl.importer(artifact_uri=current, artifact_class=dsl.Artifact).output
    drift = watch_part(settings, configs, given["evaluation"], now)
    closing_part(settings, configs, drift, given)
