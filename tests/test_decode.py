import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scanloop.archive.decode import decode, decode_with_facts, encode_png, shrink
from scanloop.artifacts import QUARANTINE_REASONS
from scanloop.errors import ImageError
from scanloop.types import Image

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(image: np.ndarray | PIL.Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    picture.save(sink, kind, **options)
    return sink.getvalue()


def slice_of(payload: bytes) -> Image:
    return decode(payload, min_side_px=2, max_pixels=10_000)


def reason_of(payload: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(payload, min_side_px=2, max_pixels=10_000)
    assert caught.value.reason in QUARANTINE_REASONS
    return caught.value.reason


@given(arrays(np.uint8, st.one_of(array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=40))))
def test_a_grey_slice_survives_its_png(image: Image) -> None:
    assert np.array_equal(slice_of(encode_png(image)), image)
    assert encode_png(image) == encode_png(image.copy())


def test_a_colour_slice_survives_its_png_and_a_grey_one_in_colour_comes_back_grey() -> None:
    assert np.array_equal(slice_of(encode_png(NOISE)), NOISE)
    grey = NOISE[..., 0]
    assert np.array_equal(slice_of(encoded(np.stack([grey] * 3, axis=-1), "PNG")), grey)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_lossless_formats_come_back_to_the_bit(kind: str) -> None:
    assert np.array_equal(slice_of(encoded(NOISE, kind)), NOISE)


def test_sixteen_bits_are_stretched_from_the_darkest_to_the_brightest_pixel() -> None:
    deep = np.linspace(1000, 5000, 400).reshape(20, 20).astype(np.uint16)
    decoded = decode_with_facts(encoded(deep, "PNG"), min_side_px=2, max_pixels=10_000)
    assert decoded.bits == 16
    assert np.abs(decoded.image - (deep - 1000) * (255 / 4000)).max() <= 0.51
    assert slice_of(encoded(np.full((9, 9), 700, np.uint16), "PNG")).max() == 0


def test_floats_that_are_not_numbers_become_black() -> None:
    values = np.array([[0.0, 1.0], [np.nan, 2.0]], np.float32).repeat(4, 0).repeat(4, 1)
    image = slice_of(encoded(values, "TIFF"))
    assert [int(image[0, 0]), int(image[0, 4]), int(image[4, 0]), int(image[4, 4])] == [0, 128, 0, 255]


def test_palettes_are_resolved_and_transparent_pixels_stand_on_black() -> None:
    indexed = PIL.Image.fromarray(NOISE).quantize(16)
    assert np.array_equal(slice_of(encoded(indexed, "PNG")), np.asarray(indexed.convert("RGB")))
    alpha = np.dstack([np.full((8, 8, 3), 200, np.uint8), np.repeat([[0, 255]], 8, 0).repeat(4, 1).astype(np.uint8)])
    assert np.array_equal(slice_of(encoded(alpha, "PNG")), np.repeat([[0, 200]], 8, 0).repeat(4, 1))


def test_each_fault_has_its_reason() -> None:
    jpeg = encoded(NOISE, "JPEG")
    assert reason_of(b"") == "empty_file"
    assert reason_of(b"this is no image\n") == "not_an_image"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"
    assert reason_of(encoded(NOISE[:1, :1], "PNG")) == "too_small"
    assert reason_of(encoded(np.zeros((200, 100), np.uint8), "PNG")) == "too_large"
    for kept in (3, 20, len(jpeg) // 2, len(jpeg) - 40):
        assert reason_of(jpeg[:kept]) == "truncated"
    png = encoded(NOISE, "PNG")
    assert reason_of(png[: len(png) // 2]) == "truncated"
    webp = encoded(NOISE, "WEBP", lossless=True)
    assert reason_of(webp[: len(webp) // 2]) == "truncated"
    broken = bytearray(png)
    broken[60:90] = bytes(30)
    assert reason_of(bytes(broken)) == "unreadable"


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    for side in (5_000, 12_000, 60_000):  # below Pillow's warning, above it, above its error
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        assert reason_of(bomb) == "too_large"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "JPEG2000"]), st.data())
def test_no_bytes_crash_it(kind: str, data: st.DataObject) -> None:
    payload = bytearray(encoded(NOISE, kind))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(payload) - 1), st.integers(0, 255)), max_size=8)
    ):
        payload[place] = value
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    fault = None
    try:
        image = decode(cut, min_side_px=1, max_pixels=100_000)
    except ImageError as error:
        fault = error
    if fault:
        assert fault.reason in QUARANTINE_REASONS
        assert " at 0x" not in fault.detail
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 2 or image.shape[2] == 3
    assert not PIL.ImageFile.LOAD_TRUNCATED_IMAGES


@given(st.binary(max_size=200))
def test_random_bytes_are_no_image(payload: bytes) -> None:
    reason_of(payload)


def test_every_real_file_cut_in_the_middle_is_truncated(data_dir: Path) -> None:
    with tarfile.open(data_dir / "brain_mri_oc.tar") as tar:
        members = [member for member in tar.getmembers() if member.name.endswith(".jpg")][::300]
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            payload = file.read()
            assert decode(payload, min_side_px=8, max_pixels=10**6).shape[:2] == (512, 512)
            with pytest.raises(ImageError, match="truncated"):
                decode(payload[: len(payload) // 2], min_side_px=8, max_pixels=10**6)


def test_shrinking_keeps_the_aspect_and_never_enlarges() -> None:
    assert shrink(PIL.Image.new("L", (600, 300)), 100).size == (200, 100)
    assert shrink(PIL.Image.new("L", (60, 30)), 100).size == (60, 30)
