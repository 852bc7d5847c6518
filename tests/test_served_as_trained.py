"""An image that is served is read as ingest read it: the same limits, and the input of its slice in the catalog."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from stored import stored_slices

from scanloop.artifacts import read_table, write_json, write_table
from scanloop.bundle.predict import Bundle
from scanloop.bundle.read import read_bundle
from scanloop.config import (
    CrossValidation,
    EmbedConfig,
    EncoderConfig,
    FolderSource,
    IngestConfig,
    PretrainConfig,
    RetrainConfig,
    TriageConfig,
)
from scanloop.embedding.encoders import new_encoder, read_encoder
from scanloop.errors import ImageError
from scanloop.learning.finetune import Classifier
from scanloop.learning.heads import Head
from scanloop.steps.embed import embed
from scanloop.steps.ingest import ingest
from scanloop.steps.pretrain import pretrain
from scanloop.steps.retrain import retrain
from scanloop.steps.triage import triage

LIMITS = {"min_side_px": 300, "max_pixels": 360_000}


def jpeg(seed: int, height: int = 500, width: int = 700) -> bytes:
    """Coloured texture, coarse and fine: what a wrong way of shrinking leaves of it shows."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (1 + height // 40, 1 + width // 40, 3), dtype=np.uint8)
    coarse = PIL.Image.fromarray(cells).resize((width, height), PIL.Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, dtype=np.float64) * (0.4 + 0.1 * (seed % 2)) + rng.integers(0, 128, (height, width, 1))
    sink = io.BytesIO()
    PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, "JPEG", quality=90)
    return sink.getvalue()


@pytest.fixture(scope="module", params=[None, EncoderConfig(input_px=16, epochs=1)], ids=["one encoder", "two"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps from an archive of large JPEGs to a bundle, with slices of 64 px and a network of 32 px."""
    folder = tmp_path_factory.mktemp("run")
    for seed in range(16):
        path = folder / "archive" / "labelled" / "ab"[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    torch.save(new_encoder("smallcnn", seed=1).state_dict(), folder / "weights.pth")
    source = FolderSource(path=str(folder / "archive"), deidentify=False)
    ingest(IngestConfig(source=source, short_side_px=64, **LIMITS), output=folder / "catalog")
    made = {"catalog": folder / "catalog"}
    config = PretrainConfig(method="none", weights=str(folder / "weights.pth"), input_px=32, beside=request.param)
    pretrain(config, **made, output=folder / "encoder")
    made["encoder"] = folder / "encoder"
    embed(EmbedConfig(), **made, output=folder / "embeddings")
    write_table(folder / "labels", "labels.parquet", pd.DataFrame({"slice_id": [], "label": []}))
    write_json(folder / "labels" / "artifact.json", {"key": "no further labels"})
    made |= {"embeddings": folder / "embeddings", "labels": folder / "labels"}
    triage(TriageConfig(), catalog=made["catalog"], embeddings=made["embeddings"], output=folder / "triage")
    made["triage"] = folder / "triage"
    plan = CrossValidation(folds=2, repeats=1)
    retrain(RetrainConfig(finetune_epochs=0, cross_validation=plan), **made, output=folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return read_bundle(run / "bundle")


def test_a_large_image_gets_the_input_and_the_probabilities_of_its_slice_in_the_catalog(
    run: Path, bundle: Bundle
) -> None:
    encoder, preprocess = read_encoder(run / "encoder")
    model = Classifier(encoder, Head(np.zeros((encoder.dimension, 2)), np.zeros(2)))
    model.load_state_dict(load_file(run / "bundle" / "model.safetensors"))
    uris = read_table(run / "catalog", "sources.parquet").set_index("slice_id")["uri"]
    for slice_id, stored in stored_slices(run / "catalog", read_table(run / "catalog", "manifest")).items():
        payload = (run / uris[slice_id]).read_bytes()
        assert stored.shape == (64, 90, 3)
        trained_on = preprocess([stored])
        np.testing.assert_array_equal(bundle.preprocess([bundle.decode(payload)]), trained_on)
        with torch.inference_mode():
            logits = model.eval().double()(torch.from_numpy(trained_on).double()).numpy()
        assert bundle.calibrator.method == "temperature"
        expected = np.exp(logits / bundle.calibrator.temperature)
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(bundle.predict_bytes([payload]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "reason", "limit"), [(500, 740, "too_large", 360_000), (290, 500, "too_small", 300)]
)
def test_the_bundle_refuses_what_ingest_was_told_to_refuse(
    bundle: Bundle, height: int, width: int, reason: str, limit: int
) -> None:
    with pytest.raises(ImageError, match=str(limit)) as refused:
        bundle.predict_bytes([jpeg(1, height, width)])
    assert refused.value.reason == reason
