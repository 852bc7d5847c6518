"""Where a component's artifact goes, and whether the code that makes it is the code that was submitted."""

from pathlib import Path

from scanloop.errors import ArtifactError
from scanloop.provenance import library_digest


def placed(default: str, run_folder: str, name: str, code: str) -> str:
    """Path for an artifact: under the run's folder where one is given, else where KFP says.

    Args:
        default: KFP's path.
        run_folder: Folder of a local run; "" in the cluster.
        name: Name of the artifact.
        code: Library digest of the submitter; part of KFP's cache key. "" checks nothing.

    Raises:
        ArtifactError: The image holds other code than the submitter's.
    """
    if code and code != library_digest():
        raise ArtifactError(
            f"the image holds scanloop {library_digest()[:12]}, the run was submitted from {code[:12]}; build and push "
            "the image from the same commit, or submit with that image's checkout"
        )
    return str(Path(run_folder) / name) if run_folder else default
