"""From the clinicians' labels to a decision about a model."""

from kfp import dsl

from pipelines.graph import Settings, closing_part, improve_part


@dsl.pipeline(name="improve", description="From the clinicians' labels to a decision about a model")
def improve(
    catalog: str,
    encoder: str,
    embeddings: str,
    triage: str,
    labels: str,
    pseudo_label: str,
    retrain: str,
    evaluate: str,
    promote: str,
    account: str,
    report: str,
    run_folder: str = "",
    code: str = "",
) -> None:
    """Pseudo-label, retrain, evaluate, promote, account and report; catalog ... labels are URIs."""
    settings = Settings(run_folder, code)
    configs = {
        "pseudo_label": pseudo_label,
        "retrain": retrain,
        "evaluate": evaluate,
        "promote": promote,
        "account": account,
        "report": report,
    }
    given = {
        "catalog": dsl.importer(artifact_uri=catalog, artifact_class=dsl.Dataset).output,
        "encoder": dsl.importer(artifact_uri=encoder, artifact_class=dsl.Model).output,
        "embeddings": dsl.importer(artifact_uri=embeddings, artifact_class=dsl.Dataset).output,
        "triage": dsl.importer(artifact_uri=triage, artifact_class=dsl.Artifact).output,
        "labels": dsl.importer(artifact_uri=labels, artifact_class=dsl.Dataset).output,
    }
    closing_part(settings, configs, improve_part(settings, configs, given), given)
