"""Component of the step `detect_drift`."""

from kfp.dsl import Artifact, Input, Output

from components.base import component


@component
def detect_drift(
    config: str,
    evaluation: Input[Artifact],
    output: Output[Artifact],
    current: Input[Artifact] = None,
    run_folder: str = "",
    code: str = "",
) -> None:
    """Compare the confidence on the pool with that on the hold-out.

    Args:
        config: Section of the run's configuration, as JSON.
        evaluation: Artifact of `evaluate`.
        output: The drift.
        current: Evaluation whose pool is compared with the reference.
        run_folder: Folder of a local run, which receives the artifact under its name; empty in the cluster.
        code: Digest of the submitter's library; part of KFP's cache key, and checked against the image.
    """
    from pathlib import Path

    from scanloop.config import DetectDriftConfig
    from scanloop.steps.detect_drift import detect_drift as step
    from scanloop.steps.placement import placed

    output.path = placed(output.path, run_folder, "drift", code)
    step(
        DetectDriftConfig.model_validate_json(config),
        evaluation=Path(evaluation.path),
        current=Path(current.path) if current else None,
        output=Path(output.path),
    )
