"""The engine in bf16 and int8 against float32, on real slices where they are at hand and on drawn ones everywhere."""

import io
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from drawn import cosines, draw

from scanloop.archive.decode import decode
from scanloop.embedding.encoders import ENCODERS, new_encoder
from scanloop.embedding.engine import Device, Engine, Precision
from scanloop.embedding.preprocess import Preprocess
from scanloop.embedding.torch_backend import AUTOCAST, TorchBackend
from scanloop.embedding.weights import CAFFE, PLAIN, load_weights
from scanloop.errors import ConfigError
from scanloop.types import Image

LEAST_COSINE = {"bf16": 0.9995, "int8": 0.995}


def engine(name: str, precision: Precision, batch_size: int = 8) -> Engine:
    return Engine(new_encoder(name, seed=1), Preprocess(input_px=64), batch_size, precision, draw(32, seed=5))


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_every_encoder_gives_the_vectors_of_float32_within_the_bound(name: str, precision: Precision) -> None:
    slices = draw(21)
    vectors, expected = engine(name, precision)(slices), engine(name, "float32")(slices)
    assert vectors.dtype == np.float16
    assert cosines(vectors, expected).min() >= LEAST_COSINE[precision]
    lengths = [np.linalg.norm(one.astype(np.float64), axis=1) for one in (vectors, expected)]
    np.testing.assert_allclose(*lengths, rtol=0.05)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_two_engines_give_the_same_bytes_and_a_slice_s_vector_does_not_depend_on_its_batch(
    precision: Precision,
) -> None:
    slices = draw(11)
    first, second = engine("smallcnn", precision), engine("smallcnn", precision)
    vectors = first(slices)
    assert vectors.tobytes() == second(slices).tobytes()
    np.testing.assert_array_equal(first(slices[::-1])[::-1], vectors)
    np.testing.assert_array_equal(first(slices[3:4]), vectors[3:4])
    assert first([]).shape == (0, 256)


def test_int8_without_slices_to_calibrate_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"int8 needs slices to calibrate with; set embed.precision to bf16$"):
        Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), 4, "int8")


def test_a_missing_openvino_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"need OpenVINO: pip install 'scanloop\[compute\]', or set it to float32"):
        Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), 4, "bf16")


@pytest.fixture(scope="module")
def brain_files(data_dir: Path) -> list[bytes]:
    with tarfile.open(data_dir / "brain_mri_oc.tar") as tar:
        members = sorted((one for one in tar if one.name.endswith(".jpg")), key=lambda one: one.name)
        return [tar.extractfile(one).read() for one in members[::12]]  # type: ignore[union-attr]


def pillow(payload: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(payload)).convert("RGB")


def as_colour(image: Image) -> np.ndarray:
    return (image if image.ndim == 3 else np.stack([image] * 3, axis=-1)).astype(int)


def test_real_files_decode_to_the_pixels_of_pillow(brain_files: list[bytes]) -> None:
    for payload in brain_files:
        found = decode(payload, min_side_px=8, max_pixels=1 << 24)
        assert np.abs(as_colour(found) - np.asarray(pillow(payload), dtype=int)).max() <= 1


def test_real_files_decoded_at_half_the_size_are_those_of_pillow_averaged(brain_files: list[bytes]) -> None:
    means = []
    for payload in brain_files:
        found = decode(payload, min_side_px=8, max_pixels=1 << 24, short_side_px=256)
        assert found.shape[:2] == (256, 256)
        averaged = np.asarray(pillow(payload).resize((256, 256), PIL.Image.Resampling.BOX), dtype=int)
        difference = np.abs(as_colour(found) - averaged)
        assert difference.max() <= 24
        means.append(difference.mean())
    assert max(means) < 1


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_real_slices_under_real_weights_keep_their_direction(
    data_dir: Path, brain_files: list[bytes], precision: Precision
) -> None:
    encoder = new_encoder("squeezenet1_1", seed=0)
    preprocess = load_weights(encoder, str(data_dir / "weights" / "SqueezeNet_fp16.onnx"), 224)
    slices = [decode(payload, min_side_px=8, max_pixels=1 << 24, short_side_px=256) for payload in brain_files]
    expected = Engine(encoder, preprocess, 32)(slices)
    vectors = Engine(encoder, preprocess, 32, precision, slices[::2])(slices)
    assert cosines(vectors, expected).min() >= LEAST_COSINE[precision]


def test_groups_come_back_whole_and_in_order_whatever_their_sizes_and_colours() -> None:
    slices, sizes = draw(40), [0, 1, 17, 0, 9, 13]
    ends = np.cumsum(sizes)
    groups = [
        (f"g{number}", slices[end - size : end]) for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    one = engine("smallcnn", "int8", batch_size=4)
    found = list(one.over(groups, np.asarray))
    assert [name for name, _ in found] == [name for name, _ in groups]
    expected = one(slices)
    for (_, vectors), size, end in zip(found, sizes, ends, strict=True):
        np.testing.assert_array_equal(vectors, expected[end - size : end])


def test_no_more_than_a_few_slices_are_decoded_ahead() -> None:
    """Memory is bounded: while the first vectors wait to be taken, most of the archive is still untouched."""
    slices, decoded = draw(32), []

    def decode(number: int) -> Image:
        decoded.append(number)
        return slices[number % 32]

    one = engine("smallcnn", "bf16", batch_size=8)
    stream = one.over(((group, range(group * 32, group * 32 + 32)) for group in range(200)), decode)
    next(stream)
    assert len(decoded) < 32 * (8 * one.cores + 8) < 200 * 32
    stream.close()


def test_an_error_in_decoding_reaches_the_caller() -> None:
    def broken(_: int) -> Image:
        raise ConfigError("broken")

    with pytest.raises(ConfigError, match="broken"):
        list(engine("smallcnn", "float32").over([("g", range(9))], broken))


@pytest.mark.parametrize("preprocess", [Preprocess(), CAFFE, PLAIN], ids=["imagenet", "caffe", "plain"])
def test_torch_normalises_bytes_as_the_preprocessing_does_to_the_bit(preprocess: Preprocess) -> None:
    preprocess = Preprocess(64, 32, preprocess.mean, preprocess.std, preprocess.bgr)
    backend = TorchBackend(new_encoder("smallcnn", seed=1), preprocess, "float32", "cpu", 9)
    slices = draw(9)
    normalised = backend._normalised(backend.prepare(slices))
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(normalised.numpy(), preprocess(slices))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_torch_computes_in_half_precision_what_a_gpu_would(precision: str) -> None:
    encoder, slices = new_encoder("smallcnn", seed=1).eval(), draw(12)
    backend = TorchBackend(encoder, Preprocess(input_px=64), precision, "cpu", 12)
    seen: list[torch.dtype] = []
    backend._encoder.blocks[0][0].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    vectors = backend.start(backend.prepare(slices))()
    assert seen == [AUTOCAST[precision]]
    assert vectors.dtype == np.float16
    assert cosines(vectors, Engine(encoder, Preprocess(input_px=64), 12)(slices)).min() > 0.9995
    assert next(encoder.parameters()).dtype == torch.float32, "the caller's encoder is left as it is"


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("float32", "cuda", "torch finds no GPU here; set embed.device to cpu or auto"),
        ("fp16", "auto", "fp16 needs a GPU, and there is none; set it to bf16 or int8"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_refused_with_the_way_out(
    precision: Precision, device: Device, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=32), 4, precision, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_gpu_gives_the_vectors_of_the_cpu_within_the_bound(precision: Precision) -> None:
    slices = draw(70)
    exact = Engine(new_encoder("resnet18", seed=1), Preprocess(input_px=64), 16, device="cpu")(slices)
    found = Engine(new_encoder("resnet18", seed=1), Preprocess(input_px=64), 16, precision, device="cuda")(slices)
    assert cosines(found, exact).min() >= 0.9995


def test_an_encoder_that_cannot_be_compiled_is_refused_with_the_way_out() -> None:
    encoder = new_encoder("smallcnn", seed=1)
    encoder.blocks[0][0].stride = (1, 1)
    with pytest.raises(ConfigError, match=r"no stride of 2\); set embed.precision to float32"):
        Engine(encoder, Preprocess(input_px=64), 4, "bf16")(draw(2))
    with pytest.raises(ConfigError, match=r"need an even pretrain\.input_px, not 33"):
        Engine(new_encoder("smallcnn", seed=1), Preprocess(input_px=33), 4, "bf16")


def test_a_compiled_network_sees_whole_batches_only_and_gives_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def compiled(network: torch.nn.Module, **_: object) -> object:
        def run(images: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(images.shape))
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    slices, encoder = draw(21), new_encoder("smallcnn", seed=1)
    plain = Engine(encoder, Preprocess(input_px=64), 8)(slices)
    found = Engine(encoder, Preprocess(input_px=64), 8, compiles=True)(slices)
    assert set(shapes) == {(8, 3, 64, 64)}
    np.testing.assert_allclose(found, plain, rtol=2e-3, atol=1e-3)


def test_where_torch_cannot_compile_the_network_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", fails)
    slices, encoder = draw(5), new_encoder("smallcnn", seed=1)
    found = Engine(encoder, Preprocess(input_px=64), 8, compiles=True)(slices)
    np.testing.assert_array_equal(found, Engine(encoder, Preprocess(input_px=64), 8)(slices))
    assert "torch.compile failed (no compiler here)" in caplog.text
