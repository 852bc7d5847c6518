"""Heat maps: against a plain loop, on a network whose evidence is known, and as the server gives them."""

import base64
import io
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
import torch
from served import JPEG, MAX_BATCH, TOKEN, Server, metric, start, v1, v2, v2_outputs
from tiny_bundle import PREPROCESS, TinyNetwork, draw_slices, new_bundle, to_jpeg
from torch import nn

from scanloop.bundle.explain import GRID, covered, draw, explain
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle

EXPLAIN = "/v1/models/scanloop:explain"


class Corner(nn.Module):
    """Lets the lower right corner through alone: 8 of 32 pixels each way."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., 24:, 24:] = 1
        self.register_buffer("mask", mask)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.mask


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = TinyNetwork()
    network.encoder = nn.Sequential(Corner(), *network.encoder)
    network.eval()
    return read_bundle(new_bundle(tmp_path_factory.mktemp("corner"), network))


def bright_square(seed: int = 0) -> np.ndarray:
    return PREPROCESS.square(draw_slices(1, seed)[0])


def plain_heat(bundle: Bundle, square: np.ndarray, label: int, grid: int) -> np.ndarray:
    """One image at a time, a pixel at a time."""
    side, heat = square.shape[0], np.zeros((grid, grid))
    (whole,) = bundle.predict_squares(square[None])
    for row in range(grid):
        for column in range(grid):
            copy = square.copy()
            for y in range(side):
                for x in range(side):
                    near = [abs((at + 0.5) * grid / side - (cell + 0.5)) < 1 for at, cell in ((y, row), (x, column))]
                    if all(near):
                        copy[y, x] = [124, 116, 104]
            heat[row, column] = whole[label] - bundle.predict_squares(copy[None])[0][label]
    return heat


def test_a_heat_map_is_that_of_a_plain_loop_whatever_the_batch(bundle: Bundle) -> None:
    square = bright_square()
    expected = plain_heat(bundle, square, 1, 4)
    assert np.ptp(expected) > 0.01
    for batch in (1, 5, 16):
        found = explain(bundle, square, 1, batch, grid=4)
        assert (found.dtype, found.shape) == (np.float32, (4, 4))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_what_two_classes_lose_and_gain_by_a_part_adds_up_to_nothing(bundle: Bundle) -> None:
    maps = [explain(bundle, bright_square(2), label) for label in (0, 1)]
    np.testing.assert_allclose(maps[0], -maps[1], rtol=0, atol=1e-6)


def test_evidence_that_lies_in_one_corner_is_found_there_and_nowhere_else(corner: Bundle) -> None:
    found = 0
    for seed in range(6):
        square = bright_square(seed)
        (probabilities,) = corner.predict_squares(square[None])
        heat = explain(corner, square, int(probabilities.argmax()))
        # Parts of 8 pixels each 4 pixels: those of the last rows and columns alone reach into the corner.
        np.testing.assert_allclose(heat[:5], 0, atol=1e-6)
        np.testing.assert_allclose(heat[:, :5], 0, atol=1e-6)
        found += np.abs(heat[5:, 5:]).max() > 1e-3
    assert found >= 3


def test_an_input_of_floats_is_covered_by_zeros_and_explained_alike(bundle: Bundle) -> None:
    square = bright_square()
    inputs = PREPROCESS.normalised(square[None])[0]
    np.testing.assert_allclose(explain(bundle, inputs, 0), explain(bundle, square, 0), rtol=0, atol=2e-3)
    assert min((copy == 0).sum() for copy in covered(inputs, PREPROCESS)) >= 3 * 6 * 6


def test_a_drawing_shows_the_image_where_nothing_is_lost_and_the_same_bytes_twice() -> None:
    square = bright_square()
    heat = np.zeros((GRID, GRID), np.float32)
    unchanged = np.asarray(PIL.Image.open(io.BytesIO(draw(square, PREPROCESS, heat))))
    np.testing.assert_array_equal(unchanged, square)
    heat[0, 0], heat[7, 7] = 0.4, -0.4
    drawn = draw(square, PREPROCESS, heat)
    assert drawn == draw(square, PREPROCESS, heat)
    moved = np.abs(np.asarray(PIL.Image.open(io.BytesIO(drawn))).astype(int) - square).sum(axis=2)
    assert moved[:3, :3].min() > 30
    assert moved[10:].max() == 0
    inputs = PREPROCESS.normalised(square[None])[0]
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(draw(inputs, PREPROCESS, heat * 0)))), square)


def test_both_protocols_explain_with_the_bundles_own_heat_map(client: httpx.Client, bundle: Bundle) -> None:
    payloads = [to_jpeg(image) for image in draw_slices(3)]
    answer = client.post(EXPLAIN, json=v1(*payloads))
    assert answer.status_code == 200, answer.text
    expected = []
    for payload in payloads:
        square = bundle.preprocess.square(bundle.decode(payload))
        label = int(bundle.predict_squares(square[None])[0].argmax())
        expected.append(draw(square, bundle.preprocess, explain(bundle, square, label)))
    maps = [base64.b64decode(row["heat_map"]["b64"]) for row in answer.json()["predictions"]]
    for found, wanted in zip(maps, expected, strict=True):
        pictures = [np.asarray(PIL.Image.open(io.BytesIO(png))).astype(int) for png in (found, wanted)]
        assert pictures[0].shape == (32, 32, 3)
        assert np.abs(pictures[0] - pictures[1]).max() <= 1  # batches of other sizes add up in another order
    asked = client.post("/v2/models/scanloop/infer", json=v2(*payloads) | {"parameters": {"explain": True}})
    assert [base64.b64decode(one) for one in v2_outputs(asked)["heat_map"]] == maps
    assert "heat_map" not in client.post("/v1/models/scanloop:predict", json=v1(*payloads)).text


def test_too_many_images_to_explain_are_refused_and_an_unreadable_one_spoils_no_other(client: httpx.Client) -> None:
    assert MAX_BATCH > 4
    refused = client.post(EXPLAIN, json=v1(*[JPEG] * 5))
    assert (refused.status_code, refused.json()["error"]) == (413, "5 images; at most 4 a request are explained")
    before = metric(client, "scanloop_explained_images_total")
    body = v1(b"no image", JPEG) | {"parameters": {"bad_images": "abstain"}}
    rows = client.post(EXPLAIN, json=body).json()["predictions"]
    assert [("heat_map" in row, "fault" in row) for row in rows] == [(False, True), (True, False)]
    assert metric(client, "scanloop_explained_images_total") == before + 1


def test_explanations_beyond_those_that_may_wait_are_told_to_come_back_and_predictions_go_on(
    served_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    server: Server = start(tmp_path, served_folder, "--token-file", str(tmp_path / "token"), "--batch", "2")
    codes: list[int] = []

    def ask() -> None:
        codes.append(server.client.post(EXPLAIN, json=v1(*[JPEG] * 4)).status_code)

    try:
        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            assert server.client.post("/v1/models/scanloop:predict", json=v1(JPEG)).status_code == 200
            seconds.append(time.perf_counter() - began)
        for thread in threads:
            thread.join()
    finally:
        server.client.close()
        server.process.kill()
        server.process.wait()
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 8
    assert np.median(seconds) < 1.0
