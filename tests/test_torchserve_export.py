"""What `scanloop export torchserve` writes: an archive with the whole bundle, and settings that leave nothing open."""

import ast
import json
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_bundle import TinyNetwork, new_bundle, new_facts
from typer.testing import CliRunner

from scanloop import cli
from scanloop.artifacts import read_json
from scanloop.bundle.read import read_bundle
from scanloop.bundle.torchserve import CONFIG, Settings, export, locked, read_export, read_properties
from scanloop.errors import BundleError, ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("bundle"))


def run(*arguments: str) -> str:
    """What the command line says; its refusal is raised."""
    result = CliRunner().invoke(cli.app, ["export", "torchserve", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_equal_bundles_give_equal_bytes_and_another_bundle_others(folder: Path, tmp_path: Path) -> None:
    again = new_bundle(tmp_path / "again")
    other = new_bundle(tmp_path / "other", TinyNetwork(seed=1))
    first, second, third = (
        export(bundle, Settings(), tmp_path / f"export {number}")
        for number, bundle in enumerate((folder, again, other))
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != third.read_bytes()
    assert (tmp_path / "export 0" / CONFIG).read_bytes() == (tmp_path / "export 1" / CONFIG).read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


def test_the_archive_holds_a_bundle_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    run("--bundle", str(folder), "--output", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "model-store" / "scanloop.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read_bundle(tmp_path / "unpacked" / "bundle").digest == read_bundle(folder).digest
    model = read_json(tmp_path / "unpacked" / "MAR-INF" / "MANIFEST.json")["model"]
    assert (tmp_path / "unpacked" / model["handler"]).is_file()
    assert read_export(tmp_path).digest.startswith(model["modelVersion"])


def test_the_archive_holds_no_pickle_and_code_of_one_class_alone(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(export(folder, Settings(), tmp_path)) as archive:
        suffixes = {Path(name).suffix for name in archive.namelist()}
        code = ast.parse(archive.read("handler.py"))
    assert suffixes <= {".json", ".npz", ".onnx", ".safetensors", ".parquet", ".md", ".py"}
    assert [type(part) for part in code.body] == [ast.Expr, ast.ImportFrom, ast.ClassDef]


def test_the_settings_close_what_torchserve_leaves_open(folder: Path, tmp_path: Path) -> None:
    options = ("--batch", "16", "--delay-ms", "7", "--workers", "2", "--max-request-mib", "3", "--name", "brain-mri")
    run("--bundle", str(folder), "--output", str(tmp_path), *options)
    stated = read_properties(tmp_path / CONFIG)
    addresses = [value for name, value in stated.items() if name.endswith("_address")]
    assert len(addresses) == 5
    assert all(value.removeprefix("http://").startswith("127.0.0.1") for value in addresses)
    assert stated["disable_token_authorization"] == stated["enable_model_api"] == "false"
    assert stated["allowed_urls"] == "none"
    assert stated["install_py_dep_per_model"] == stated["enable_envvars_config"] == "false"
    assert stated["metrics_mode"] == "prometheus"
    assert "service_envelope" not in stated
    assert stated["max_request_size"] == str(3 * 2**20)
    (model,) = json.loads(stated["models"])["brain-mri"].values()
    assert (model["batchSize"], model["maxBatchDelay"], model["minWorkers"], model["maxWorkers"]) == (16, 7, 2, 2)


def test_each_of_torchserves_five_ports_has_its_own_number() -> None:
    ports = [8101, 8102, 8103, 8104, 8105]
    text = json.dumps(locked(ports))
    assert all(text.count(str(port)) == 1 for port in ports)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--engine", "tensorrt"), "--engine tensorrt"),
        (("--precision", "fp8"), "--precision fp8"),
        (("--precision", "bf16"), "openvino"),
        (("--name", "../elsewhere"), "--name"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(
    folder: Path, tmp_path: Path, options: tuple[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        run("--bundle", str(folder), "--output", str(tmp_path), *options)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_not_what_its_seal_promises_is_not_exported(tmp_path: Path) -> None:
    bundle = new_bundle(tmp_path / "bundle")
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        export(bundle, Settings(), tmp_path / "export")
    with pytest.raises(BundleError, match="no such bundle"):
        export(tmp_path / "nowhere", Settings(), tmp_path / "export")


def test_a_folder_that_is_no_export_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scanloop export torchserve"):
        read_export(tmp_path)
    archive = export(folder, Settings(), tmp_path)
    assert read_export(tmp_path).classes == tuple(new_facts().classes)
    archive.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="scanloop export torchserve"):
        read_export(tmp_path)


def test_the_export_needs_neither_torchserve_nor_the_server() -> None:
    assert cli.export is not None
    tree = ast.parse(Path(sys.modules["scanloop.bundle.torchserve"].__file__ or "").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name and name.split(".")[0] in {"serving", "ts"}]
