"""Submit a compiled pipeline to a Kubeflow Pipelines server, and refuse what could not come out well there."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.base import IMAGE
from pipelines.registry import COMPILED, IMPORTED, Request
from scanloop.config import EmbedConfig, PromoteConfig
from scanloop.errors import ConfigError, SubmissionError


@dataclass(frozen=True)
class Target:
    """Where a run goes.

    Attributes:
        host: URL of the KFP API.
        image: Image of every step.
        namespace: Kubernetes namespace of a multi-user installation; None for a single-user one.
        token_file: File with a bearer token; None for an open server or one that kfp finds credentials for itself.
    """

    host: str
    image: str = IMAGE
    namespace: str | None = None
    token_file: Path | None = None


def artifacts_by_name(pipeline: str, given: Sequence[str]) -> dict[str, str]:
    """URI of each artifact that a pipeline takes from an earlier run; in a cluster each has a URI of its own.

    Args:
        pipeline: Key of `PIPELINES`.
        given: "NAME=URI" each, for example "catalog=s3://mlpipeline/v2/artifacts/loop/42/ingest/output".

    Raises:
        ConfigError: One is not NAME=URI, unknown, given twice or missing; the message names all of them.
    """
    needed = IMPORTED.get(pipeline, ())
    pairs = [(name, uri) for name, _, uri in (entry.partition("=") for entry in given) if name and uri]
    names = [name for name, _ in pairs]
    faults = {
        "not NAME=URI": [entry for entry in given if not all(entry.partition("="))],
        "unknown": sorted(set(names) - set(needed)),
        "given twice": sorted({name for name in names if names.count(name) > 1}),
        "missing": [name for name in needed if name not in names],
    }
    if not any(faults.values()):
        return dict(pairs)
    told = "; ".join(f"{fault}: {', '.join(entries)}" for fault, entries in faults.items() if entries)
    if not needed:
        raise ConfigError(f"--artifact: {told}; {pipeline} takes nothing from an earlier run")
    example = "--artifact catalog=s3://mlpipeline/v2/artifacts/loop/42/ingest/output"
    remark = ", where current is the evaluation to watch" if "current" in needed else ""
    raise ConfigError(f"--artifact: {told}; {pipeline} takes {', '.join(needed)}{remark}. For example: {example}")


def refuse_lost_registry(request: Request) -> None:
    """Return if a run promotes nothing, or into a registry that outlives its pods.

    Raises:
        ConfigError: No registry is named, and the one beside the artifacts would go with the pod.
    """
    section = request.arguments.get("promote")
    if section is not None and not PromoteConfig.model_validate_json(section).tracking_uri:
        raise ConfigError(
            f"promote.tracking_uri: {request.pipeline} needs an MLflow server in a cluster, where an SQLite file "
            "would be lost with its pod; set it, for example with --set promote.tracking_uri=https://mlflow.example"
        )


def refuse_scattered_parts(request: Request) -> None:
    """Return if a run embeds in one part, or all of its parts see one store.

    Raises:
        ConfigError: No store is named, and each part's vectors would be lost with its pod.
    """
    section = EmbedConfig.model_validate_json(request.arguments["embed"]) if "embed" in request.arguments else None
    if section is not None and section.parts > 1 and section.store is None:
        raise ConfigError(
            f"embed.store: {section.parts} parts need a folder that all of their pods see; set it, for example with "
            "--set embed.store=/mnt/shared/embeddings, or set embed.parts to 1"
        )


def package(pipeline: str, image: str) -> str:
    """Compiled pipeline as YAML, with this image in every step.

    Raises:
        SubmissionError: The compiled file is missing.
    """
    path = COMPILED / f"{pipeline}.yaml"
    if not path.is_file():
        raise SubmissionError(f"{path} is missing; run `make compile`")
    return path.read_text().replace(f"image: {IMAGE}", f"image: {image}")


def tasks_of(text: str) -> list[str]:
    """Names of a compiled pipeline's tasks, in order of name."""
    return sorted(next(iter(yaml.safe_load_all(text)))["root"]["dag"]["tasks"])


def submit(request: Request, target: Target) -> str:
    """Start a run on the server; its URL comes back.

    Raises:
        SubmissionError: The server cannot be reached, or refuses; or the token cannot be read.
    """
    from kfp import client

    try:
        token = target.token_file.read_text().strip() if target.token_file else None
    except OSError as error:
        raise SubmissionError(f"{target.token_file}: the token cannot be read: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{request.pipeline}.yaml"
        path.write_text(package(request.pipeline, target.image))
        try:
            api = client.Client(host=target.host, namespace=target.namespace or "kubeflow", existing_token=token)
            run = api.create_run_from_pipeline_package(
                str(path), arguments=request.arguments, namespace=target.namespace, run_name=request.pipeline
            )
        except Exception as error:  # the generated client raises urllib3's, its own and ValueErrors alike
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SubmissionError(
                f"{target.host} did not take the run: {reason}; is this the KFP API's URL?"
            ) from error
    return f"{target.host.rstrip('/')}/#/runs/details/{run.run_id}"
