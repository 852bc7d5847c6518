"""Submit a compiled pipeline to a Kubeflow Pipelines server."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.base import IMAGE
from pipelines.registry import COMPILED, Request
from scanloop.errors import SubmissionError


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
