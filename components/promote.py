"""Component of the step `promote`."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.base import component


@component
def promote(
    config: str,
    catalog: Input[Dataset],
    bundle: Input[Model],
    evaluation: Input[Artifact],
    output: Output[Artifact],
    run_folder: str = "",
    code: str = "",
) -> None:
    """Decide on bounds whether the model becomes champion, and record the decision in MLflow.

    Args:
        config: Section of the run's configuration, as JSON.
        catalog: Artifact of `ingest`.
        bundle: Artifact of `retrain`, with pseudo-labels.
        evaluation: Artifact of `evaluate`.
        output: The promotion.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import PromoteConfig
    from scanloop.steps.placement import placed
    from scanloop.steps.promote import promote as step

    output.path = placed(output.path, run_folder, "promotion", code)
    step(
        PromoteConfig.model_validate_json(config),
        catalog=Path(catalog.path),
        bundle=Path(bundle.path),
        evaluation=Path(evaluation.path),
        output=Path(output.path),
    )
