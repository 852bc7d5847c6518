"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chain import Chain
from dicom_objects import samples  # noqa: F401  # a fixture of the tests of DICOM
from label_pages import make_site, site  # noqa: F401  # fixtures of the tests of the clinicians' page
from label_stores import address, clock, postgres, store  # noqa: F401  # fixtures of the tests of the label store
from object_store import bucket, credentials, moto_url  # noqa: F401  # fixtures of the tests of storage
from served import bundle, client, served_folder, server  # noqa: F401  # fixtures of the tests of serving

THREADS_OF_TORCH = torch.get_num_threads()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the proofs under load last; five minutes are `--soak-seconds 300`."""
    parser.addoption("--soak-seconds", type=float, default=20.0, help="load on the model server, in seconds")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real images; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not here: {folder} (set SCANLOOP_DATA)")
    return folder.resolve()


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A small run of the loop on synthetic slices, whose artifacts are made as they are asked for."""
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """An engine of torch sets its threads for the whole process; what trains later would round otherwise."""
    yield
    if torch.get_num_threads() != THREADS_OF_TORCH:
        torch.set_num_threads(THREADS_OF_TORCH)
