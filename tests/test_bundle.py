"""The bundle: sealed, deterministic, and the same probabilities as torch whatever the batch."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from tiny_bundle import (
    TinyNetwork,
    draw_slices,
    new_bundle,
    new_facts,
    to_jpeg,
    torch_probabilities,
)

from scanloop.artifacts import KINDS, check_artifact
from scanloop.bundle.engines.choice import Wanted
from scanloop.bundle.facts import Calibration
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.bundle.write import write_bundle
from scanloop.calibration.calibrator import Calibrator
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import BundleError, ImageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_bundle_holds_every_file_of_its_kind_and_nothing_else(folder: Path) -> None:
    check_artifact(folder, "bundle")
    assert {file.name for file in folder.iterdir()} == set(KINDS["bundle"])


def test_probabilities_equal_those_of_torch_in_double_precision(bundle: Bundle) -> None:
    images = draw_slices(20, seed=1)
    probabilities = bundle.predict(images)
    expected = torch_probabilities(TinyNetwork(), images)
    assert np.ptp(expected[:, 0]) > 0.2  # the comparison means something
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert probabilities.dtype == np.float64


def test_probabilities_do_not_depend_on_the_batch_nor_on_the_threads(folder: Path, bundle: Bundle) -> None:
    images = draw_slices(23, seed=2)
    whole = bundle.predict(images)
    for batch_size in (1, 2, 7, 23):
        np.testing.assert_allclose(bundle.predict(images, batch_size), whole, rtol=0, atol=1e-6)
    backwards = bundle.predict(images[::-1])[::-1]
    np.testing.assert_allclose(backwards, whole, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(bundle.predict(images), whole)
    np.testing.assert_allclose(read_bundle(folder, Wanted(threads=1)).predict(images), whole, rtol=0, atol=1e-6)
    assert bundle.predict([]).shape == (0, 2)


def test_encoded_images_get_the_probabilities_of_their_pixels(bundle: Bundle, data_dir: Path) -> None:
    with tarfile.open(data_dir / "brain_mri_oc.tar") as archive:
        names = [name for name in archive.getnames() if name.lower().endswith((".jpg", ".jpeg", ".png"))][:6]
        payloads = [archive.extractfile(name).read() for name in names]
    found = bundle.predict_bytes(payloads)
    np.testing.assert_allclose(found, bundle.predict([bundle.decode(one) for one in payloads]), rtol=0, atol=1e-9)
    pixels = [np.asarray(PIL.Image.open(io.BytesIO(payload)).convert("RGB")) for payload in payloads]
    # A JPEG is halved while it is decoded, as it was for training; pixels that someone else decoded are averaged.
    np.testing.assert_allclose(found, bundle.predict(pixels), rtol=0, atol=0.02)


def test_an_image_beyond_the_limits_is_refused_with_its_reason(bundle: Bundle) -> None:
    with pytest.raises(ImageError) as small:
        bundle.predict_bytes([to_jpeg(np.zeros((4, 40), np.uint8))])
    with pytest.raises(ImageError) as text:
        bundle.predict_bytes([b"not an image"])
    assert (small.value.reason, text.value.reason) == ("too_small", "not_an_image")


def test_the_weights_are_those_of_the_network_and_can_be_trained_further(folder: Path) -> None:
    network = TinyNetwork(seed=5)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    for name, tensor in TinyNetwork().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_the_network_given_is_left_as_it_was(tmp_path: Path) -> None:
    network = TinyNetwork().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    new_bundle(tmp_path, network)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def assert_same_bytes(folder: Path, other: Path) -> None:
    for name in KINDS["bundle"]:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_the_same_network_is_written_to_the_same_bytes_whatever_its_memory_layout(folder: Path, tmp_path: Path) -> None:
    assert_same_bytes(folder, new_bundle(tmp_path, TinyNetwork().to(memory_format=torch.channels_last)))


@pytest.mark.integration  # imports torch and its exporter anew: 15 seconds
def test_another_process_writes_the_same_bytes_whatever_its_hash_seed(folder: Path, tmp_path: Path) -> None:
    program = "import sys, pathlib, tiny_bundle; tiny_bundle.new_bundle(pathlib.Path(sys.argv[1]))"
    others = {"PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=os.environ | others, cwd=tmp_path)
    assert_same_bytes(folder, tmp_path)


def test_the_exported_network_is_one_file_with_a_free_batch_and_no_path_of_the_machine(folder: Path) -> None:
    payload = (folder / "model.onnx").read_bytes()
    model = onnx.load_from_string(payload)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b".py" not in payload
    assert str(Path.cwd()).encode() not in payload


@pytest.mark.parametrize("name", KINDS["bundle"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} missing; .*retrain"):
        read_bundle(copied)


@pytest.mark.parametrize("name", sorted(set(KINDS["bundle"]) - {"bundle.json"}))
def test_a_changed_file_is_named(copied: Path, name: str) -> None:
    payload = bytearray((copied / name).read_bytes())
    payload[len(payload) // 2] ^= 1
    (copied / name).write_bytes(payload)
    with pytest.raises(BundleError, match=rf"{name} is not the file that bundle.json promises; .*retrain"):
        read_bundle(copied)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"schema_version": 99}'])
def test_a_broken_seal_is_a_bundle_error(copied: Path, content: str) -> None:
    (copied / "bundle.json").write_text(content)
    with pytest.raises(BundleError):
        read_bundle(copied)


def test_no_directory_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere: no such bundle; .*retrain"):
        read_bundle(tmp_path / "nowhere")


def test_an_engine_that_computes_something_else_is_noticed_when_the_bundle_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    run = onnxruntime.InferenceSession.run
    wrong = np.float32([0.01, 0])
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: [run(*args)[0] + wrong, run(*args)[1]])
    with pytest.raises(BundleError, match="reference slices"):
        read_bundle(folder)


def test_an_engine_that_computes_nothing_finite_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    run = onnxruntime.InferenceSession.run
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "run", lambda *args: [one * np.float32(np.nan) for one in run(*args)]
    )
    with pytest.raises(BundleError, match="reference slices"):
        read_bundle(folder)


def test_a_network_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="classes"):
        new_bundle(tmp_path, TinyNetwork(classes=3))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    with pytest.raises(BundleError, match="finite"):
        new_bundle(tmp_path, network)


def test_the_out_of_fold_table_must_be_there_to_be_sealed_in(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"write out_of_fold\.parquet, learnt\.parquet before"):
        write_bundle(tmp_path, TinyNetwork(), new_facts())


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("cancer",)},
        {"classes": ("cancer", "cancer")},
        {"positive_class": "tumour"},
        {"calibration": Calibration(Calibrator("temperature", 0.0), "", 1, 1)},
        {"calibration": Calibration(Calibrator("temperature", float("nan")), "", 1, 1)},
        {"reference": ()},
    ],
)
def test_impossible_facts_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        new_facts(**changes)


def test_an_archive_smaller_than_the_networks_input_is_served_right(tmp_path: Path) -> None:
    preprocess = Preprocess(archive_px=16, input_px=32, bgr=True)
    network = TinyNetwork()
    bundle = read_bundle(new_bundle(tmp_path, network, new_facts(preprocess=preprocess)))
    images = draw_slices(5, seed=3)
    expected = torch_probabilities(network, images, preprocess)
    np.testing.assert_allclose(bundle.predict(images), expected, rtol=0, atol=1e-6)


def test_the_model_card_states_counts_metrics_with_n_and_that_it_is_no_medical_device(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| labelled | 50 | 49 | 99 |" in card
    assert "| macro_f1 | 0.900 | 0.850 to 0.940 (95%, bootstrap) | 99 | 97 |" in card
    assert "Not a medical device" in card
    assert "at most 5% of further ones of their kind" in card
    assert "`tpr 0.95`: `cancer` from 0.4" in card


def test_the_digest_names_the_model(bundle: Bundle, tmp_path: Path) -> None:
    other = read_bundle(new_bundle(tmp_path, TinyNetwork(seed=1)))
    assert len(bundle.digest) == 64
    assert other.digest != bundle.digest
    assert bundle.about["encoder"] == "tiny"
