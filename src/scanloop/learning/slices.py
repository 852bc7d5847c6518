"""Slices of a catalog by id, and what a network makes of them."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from scanloop.archive.shards import iterate_shards
from scanloop.embedding.encoders import Encoder
from scanloop.embedding.engine import Engine
from scanloop.embedding.preprocess import Preprocess
from scanloop.learning.finetune import frozen_maps
from scanloop.types import Half, Image

BATCH = 64


@dataclass(frozen=True)
class Slices:
    """A catalog, the rows of its manifest, and what makes a network's input of a slice."""

    catalog: Path
    manifest: pd.DataFrame
    preprocess: Preprocess

    def images(self, slice_ids: Any) -> list[Image]:
        """Slices in the catalog's order."""
        return [image for _, _, images in iterate_shards(self.catalog, self._rows(slice_ids)) for image in images]

    def maps(self, encoder: Encoder, slice_ids: Any) -> Tensor:
        """Frozen feature maps (n, c, s, s), in the order of the ids."""
        if not len(slice_ids):
            side = torch.zeros(1, 3, self.preprocess.input_px, self.preprocess.input_px)
            return frozen_maps(encoder, side)[:0]
        rows = self._rows(slice_ids)
        ids: list[str] = []
        parts: list[Tensor] = []
        with tqdm(total=len(rows), desc="retrain: frozen features", unit="slice", mininterval=2) as bar:
            for _, shard_ids, images in iterate_shards(self.catalog, rows):
                ids += shard_ids
                for start in range(0, len(images), BATCH):
                    batch = torch.from_numpy(self.preprocess(images[start : start + BATCH]))
                    parts.append(frozen_maps(encoder, batch))
                bar.update(len(images))
        return torch.cat(parts)[torch.from_numpy(pd.Index(ids).get_indexer(pd.Index(slice_ids)))]

    def embeddings(self, encoder: Encoder, slice_ids: Any) -> Half:
        """Embeddings float16 (n, d), in the order of the ids, which may repeat; the encoder is left as it is."""
        rows = self._rows(slice_ids)
        shards = ((tuple(ids), images) for _, ids, images in iterate_shards(self.catalog, rows))
        found: list[str] = []
        parts = [np.empty((0, encoder.dimension), np.float16)]
        engine = Engine(copy.deepcopy(encoder), self.preprocess, BATCH, device="cpu")
        with tqdm(total=len(rows), desc="retrain: embeddings", unit="slice", mininterval=2) as bar:
            for ids, vectors in engine.over(shards, lambda image: image):
                found += ids
                parts.append(vectors)
                bar.update(len(ids))
        vectors = np.concatenate(parts)[pd.Index(found).get_indexer(pd.Index(slice_ids))]
        return vectors

    def _rows(self, slice_ids: Any) -> pd.DataFrame:
        return self.manifest[self.manifest["slice_id"].isin(set(slice_ids))]
