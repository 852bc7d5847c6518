import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scanloop import provenance
from scanloop.config import STEPS
from scanloop.provenance import (
    Source,
    code_digest,
    digest,
    file_digest,
    library_digest,
    machine,
    packages,
    source_digest,
)

Tree = Callable[[], dict[str, str]]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that a test may change."""
    root = tmp_path / "scanloop"
    shutil.copytree(provenance.PACKAGE_ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", root)
    return root


def digests() -> dict[str, str]:
    """Code digest of every step, of the copy as it stands."""
    return {step: code_digest.__wrapped__(f"scanloop.steps.{step}") for step in STEPS}


def changed_steps(package: Path, name: str, line: str = "\n# a changed line\n") -> set[str]:
    """Steps whose digest a line at the end of a file changes."""
    before = digests()
    with (package / name).open("a") as file:
        file.write(line)
    after = digests()
    return {step for step in STEPS if after[step] != before[step]}


def reachable(package: Path, step: str) -> str:
    """Text of a step's own file."""
    return (package / "steps" / f"{step}.py").read_text()


def test_a_line_in_clusters_changes_triage_alone(package: Path) -> None:
    assert changed_steps(package, "triage/clusters.py") == {"triage"}


def test_a_line_in_the_readers_changes_ingest_alone(package: Path) -> None:
    assert changed_steps(package, "archive/readers/npz.py") == {"ingest"}


def test_a_line_in_what_the_reader_of_dicom_runs_in_its_own_process_changes_ingest_alone(package: Path) -> None:
    assert changed_steps(package, "archive/dicom/pixels.py") == {"ingest"}
    assert changed_steps(package, "archive/dicom/worker.py") == {"ingest"}


def test_a_line_in_two_stages_changes_retrain_alone(package: Path) -> None:
    assert changed_steps(package, "learning/two_stage.py") == {"retrain"}


def test_a_line_in_the_encoders_changes_the_steps_that_run_them(package: Path) -> None:
    changed = changed_steps(package, "embedding/encoders.py")
    assert {"pretrain", "embed", "retrain"} <= changed
    assert not changed & {"ingest", "validate", "oracle", "triage", "account", "detect_drift"}


@pytest.mark.parametrize("name", ["artifacts.py", "build.py", "config.py", "__init__.py"])
def test_a_line_in_the_foundation_changes_every_step(package: Path, name: str) -> None:
    assert changed_steps(package, name) == set(STEPS)


def test_a_line_in_the_command_line_changes_no_step(package: Path) -> None:
    assert changed_steps(package, "cli.py") == set()


def test_imports_inside_functions_count(package: Path) -> None:
    source = reachable(package, "report")
    assert "    from scanloop.report.page import render" in source, "the example of this test is gone"
    assert changed_steps(package, "report/page.py") == {"report"}


def test_an_import_through_a_package_counts(package: Path) -> None:
    (package / "steps" / "oracle.py").open("a").write("\ndef later() -> None:\n    from scanloop import triage\n")
    assert changed_steps(package, "triage/__init__.py") >= {"oracle", "triage"}


@pytest.mark.parametrize(
    ("name", "step"),
    [("money/prices.yaml", "account"), ("report/page.html.j2", "report"), ("report/style.css", "report")],
)
def test_data_files_beside_a_module_count(package: Path, name: str, step: str) -> None:
    changed = changed_steps(package, name)
    assert step in changed
    assert "ingest" not in changed


def test_a_file_that_is_not_code_does_not_count(package: Path) -> None:
    (package / "triage" / "notes.txt").write_text("one")
    assert changed_steps(package, "triage/notes.txt") == set()


def test_no_module_imports_relatively_because_the_digest_reads_absolute_imports_only() -> None:
    for path in provenance.PACKAGE_ROOT.rglob("*.py"):
        assert "\nfrom ." not in path.read_text(), path


def test_the_digest_is_remembered_within_a_process(package: Path) -> None:
    code_digest.cache_clear()
    try:
        before = code_digest("scanloop.steps.triage")
        (package / "triage" / "clusters.py").open("a").write("\n# changed\n")
        assert code_digest("scanloop.steps.triage") == before
    finally:
        code_digest.cache_clear()


def test_the_librarys_digest_changes_with_any_file(package: Path) -> None:
    before = library_digest.__wrapped__()
    (package / "cli.py").open("a").write("\n# changed\n")
    assert library_digest.__wrapped__() != before


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_a_sources_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(b"bytes")
    before = source_digest(Source(str(path)))
    os.utime(path, (1, 1))
    assert source_digest(Source(str(path))) == before == file_digest(path)
    path.write_bytes(b"other")
    assert source_digest(Source(str(path))) != before


def test_a_folders_digest_changes_with_names_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = tmp_path / "a" / "1.png"
    image.write_bytes(b"one")
    seen = [source_digest(Source(str(tmp_path)))]
    assert source_digest(Source(str(tmp_path))) == seen[0]
    image.write_bytes(b"longer")
    seen.append(source_digest(Source(str(tmp_path))))
    os.utime(image, (1, 1))
    seen.append(source_digest(Source(str(tmp_path))))
    image.rename(tmp_path / "a" / "2.png")
    seen.append(source_digest(Source(str(tmp_path))))
    (tmp_path / "a" / "3.png").write_bytes(b"")
    seen.append(source_digest(Source(str(tmp_path))))
    assert len(set(seen)) == len(seen)


def test_a_folders_digest_follows_links_as_the_reader_does(tmp_path: Path) -> None:
    elsewhere, archive = tmp_path / "elsewhere", tmp_path / "archive"
    elsewhere.mkdir()
    archive.mkdir()
    (elsewhere / "1.png").write_bytes(b"one")
    (archive / "linked").symlink_to(elsewhere)
    before = source_digest(Source(str(archive)))
    (elsewhere / "2.png").write_bytes(b"two")
    assert source_digest(Source(str(archive))) != before


def test_a_link_to_nothing_counts_with_its_target(tmp_path: Path) -> None:
    link = tmp_path / "1.png"
    link.symlink_to("nowhere")
    before = source_digest(Source(str(tmp_path)))
    assert source_digest(Source(str(tmp_path))) == before
    link.unlink()
    link.symlink_to("elsewhere")
    assert source_digest(Source(str(tmp_path))) != before


def test_the_machine_does_not_say_whose_it_is() -> None:
    assert set(machine()) - {"gpu"} == {"processor", "processor_model", "threads", "cores", "system", "python"}
    assert os.uname().nodename not in str(machine())


def test_the_packages_that_can_change_a_result_are_listed_with_versions() -> None:
    found = packages()
    assert {"numpy", "pyarrow", "torch", "scikit-learn"} <= found.keys()
    assert all(version[0].isdigit() for version in found.values())
