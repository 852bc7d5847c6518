"""Pretrained weights: the features are those of the file's own network, and a wrong file is refused."""

import email.message
import hashlib
import pickle
import shutil
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
import torch

from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.vision import torchvision
from scanloop.embedding.weights import CAFFE, IMAGENET, PLAIN, load_weights
from scanloop.errors import WeightsError


def brain_slices(data_dir: Path, count: int) -> list[np.ndarray]:
    with tarfile.open(data_dir / "brain_mri_oc.tar") as archive:
        names = [member.name for member in archive if member.name.lower().endswith(".jpg")][:: 1500 // count][:count]
        return [np.asarray(PIL.Image.open(archive.extractfile(name)).convert("RGB")) for name in names]


@pytest.fixture
def squeezenet(data_dir: Path) -> Path:
    path = data_dir / "weights" / "SqueezeNet_fp16.onnx"
    if not path.is_file():
        pytest.skip(f"the weights are not here: {path}")
    return path


def onnx_features(path: Path, inputs: np.ndarray) -> np.ndarray:
    """The file's own answer in front of its classifier, by ONNX Runtime."""
    import onnxruntime

    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("fire9/concat_1", onnx.TensorProto.FLOAT16, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    maps = [session.run(["fire9/concat_1"], {feed: row[None].astype(np.float16)})[0][0] for row in inputs]
    return np.stack(maps).astype(np.float64)


def test_squeezenet_gives_the_features_of_its_own_file_on_real_images(squeezenet: Path, data_dir: Path) -> None:
    encoder = new_encoder("squeezenet1_1", seed=0).eval()
    preprocess = load_weights(encoder, str(squeezenet), 224)
    assert preprocess == Preprocess(input_px=224, mean=CAFFE.mean, std=CAFFE.std, bgr=True)
    slices = brain_slices(data_dir, 4)
    inputs = np.stack([by_hand(image) for image in slices])
    np.testing.assert_array_equal(preprocess(slices), inputs)
    with torch.inference_mode():
        maps = encoder.run(torch.from_numpy(inputs)).double().numpy()
        embeddings = encoder(torch.from_numpy(inputs)).double().numpy()
    expected = onnx_features(squeezenet, inputs)
    assert maps.shape == expected.shape == (4, 512, 13, 13)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=0.01 * expected.max())
    np.testing.assert_allclose(embeddings, expected.mean(axis=(2, 3)), rtol=0, atol=0.005 * expected.max())
    assert np.corrcoef(embeddings.ravel(), expected.mean(axis=(2, 3)).ravel())[0, 1] > 0.99999


def by_hand(image: np.ndarray) -> np.ndarray:
    """What the network was trained on: 224 pixels, blue first, the mean of each channel subtracted."""
    picture = PIL.Image.fromarray(image)
    assert picture.size == (512, 512)
    small = picture.resize((256, 256), PIL.Image.Resampling.BOX).resize((224, 224), PIL.Image.Resampling.BILINEAR)
    red, green, blue = np.asarray(small, dtype=np.float32).transpose(2, 0, 1)
    return np.stack([blue - 104, green - 117, red - 123])


def test_a_state_dict_of_torchvisions_resnet18_gives_torchvisions_features(tmp_path: Path) -> None:
    torch.manual_seed(11)
    net = torchvision().models.resnet18(weights=None).eval()
    for name, buffer in net.named_buffers():  # statistics that are not those of a fresh network
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    encoder = new_encoder("resnet18", seed=0).eval()
    assert load_weights(encoder, str(tmp_path / "resnet18.pth"), 96) == Preprocess(input_px=96)
    net.fc = torch.nn.Identity()
    images = torch.randn(3, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), net(images))


def test_without_weights_the_encoder_stays_as_it_was_drawn() -> None:
    encoder, fresh = new_encoder("smallcnn", seed=2), new_encoder("smallcnn", seed=2)
    assert load_weights(encoder, None, 40) == Preprocess(input_px=40, mean=PLAIN.mean, std=PLAIN.std)
    assert all(
        torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_a_download_that_fails_names_the_url_and_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_route(request: Any, *_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_route)
    with pytest.raises(WeightsError, match=rf"no route to host.*https://\S+{name}\S+\.pth.*pretrain\.weights"):
        load_weights(new_encoder(name, seed=0), "imagenet", 224)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_download_is_checked_against_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = torchvision().models.squeezenet1_1(weights=None)
    served = tmp_path / "served.pth"
    torch.save(net.state_dict(), served)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: _Response(served))
    with pytest.raises(WeightsError, match="hash"):
        load_weights(new_encoder("squeezenet1_1", seed=0), "imagenet", 224)


class _Response:
    """A file as a web server sends it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.headers = {"Content-Length": str(path.stat().st_size)}

    def info(self) -> Any:
        headers = email.message.Message()
        headers["Content-Length"] = self.headers["Content-Length"]
        return headers

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def __enter__(self) -> "_Response":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_there_are_no_imagenet_weights_of_the_small_network() -> None:
    with pytest.raises(WeightsError, match="smallcnn"):
        load_weights(new_encoder("smallcnn", seed=0), "imagenet", 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such weights file"):
        load_weights(new_encoder("smallcnn", seed=0), str(tmp_path / "nowhere.pth"), 64)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {},
        {"conv1.weight": torch.zeros(3)},
        {1: torch.zeros(3)},
        {"state_dict": {"conv1.weight": torch.zeros(3)}, "epoch": 3},
    ],
    ids=["tensor", "list", "empty", "too few", "numbered", "nested"],
)
def test_a_file_of_something_else_is_refused_and_changes_nothing(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "wrong.pth")
    assert_refused("smallcnn", tmp_path / "wrong.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision().models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    assert_refused("resnet18", tmp_path / "squeezenet.pth")


def test_the_right_number_of_values_that_are_no_tensors_is_refused(tmp_path: Path) -> None:
    names = new_encoder("smallcnn", seed=0).state_dict()
    torch.save(dict.fromkeys(names, 1.0), tmp_path / "numbers.pth")
    assert_refused("smallcnn", tmp_path / "numbers.pth")


@pytest.mark.parametrize("payload", [b"", b"neither torch nor ONNX"])
@pytest.mark.parametrize("name", ["broken.pth", "broken.onnx"])
def test_a_broken_file_is_refused(name: str, payload: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(payload)
    assert_refused("squeezenet1_1", tmp_path / name)


def test_onnx_weights_fit_squeezenet_only(squeezenet: Path) -> None:
    assert_refused("resnet18", squeezenet)


class _Trap:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_the_code_never_runs(by_torch: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "trap.pth", tmp_path / "ran"
    if by_torch:
        torch.save({"conv1.weight": _Trap(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1.weight": _Trap(mark)}))
    assert_refused("resnet18", path)
    assert not mark.exists()


def assert_refused(name: str, path: Path) -> None:
    encoder = new_encoder(name, seed=0)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(WeightsError):
        load_weights(encoder, str(path), 64)
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


def test_imagenet_preprocessing_is_torchvisions_own() -> None:
    own = torchvision().models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    np.testing.assert_allclose(np.array(IMAGENET.mean) / 255, own.mean, atol=1e-9)
    np.testing.assert_allclose(np.array(IMAGENET.std) / 255, own.std, atol=1e-9)
    assert (IMAGENET.archive_px, IMAGENET.input_px) == (own.resize_size[0], own.crop_size[0])


def test_a_file_is_held_to_the_hash_that_its_name_promises(tmp_path: Path) -> None:
    encoder = new_encoder("resnet18", seed=5)
    net = torchvision().models.resnet18(weights=None)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    digest = hashlib.sha256((tmp_path / "plain.pth").read_bytes()).hexdigest()
    kept = shutil.copy(tmp_path / "plain.pth", tmp_path / f"resnet18-{digest[:8]}.pth")
    load_weights(encoder, str(kept), 64)
    broken = shutil.copy(tmp_path / "plain.pth", tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match=rf"starts with f37072fd, the bytes have {digest[:8]}; fetch the file again"):
        load_weights(encoder, str(broken), 64)
