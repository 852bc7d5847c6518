"""Probabilities of the slices of a catalog, shard by shard."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from scanloop.archive.shards import iterate_shards
from scanloop.artifacts import write_bytes
from scanloop.bundle.predict import Bundle
from scanloop.errors import BundleError
from scanloop.types import Float


@dataclass(frozen=True)
class Scorer:
    """Predicts slices of a catalog shard by shard; each shard is kept, and a killed run finds it again.

    Attributes:
        catalog: Artifact that holds the shards.
        folder: Where the shards' probabilities are kept while the step runs.
    """

    catalog: Path
    folder: Path

    def __call__(self, model: Bundle, rows: pd.DataFrame, name: str = "bundle") -> pd.Series:
        """Probabilities (classes,) by slice_id of some rows of the manifest.

        Raises:
            BundleError: A probability is not a number.
        """
        found: dict[str, Float] = {}
        with tqdm(total=len(rows), desc=f"evaluate {name}", unit="slice", mininterval=2) as bar:
            for shard, members in rows.groupby("shard", sort=False):
                kept = self.folder / name / f"{shard}.npy"
                if not kept.exists():
                    write_bytes(kept, self._predict(model, members))
                block = np.load(kept, allow_pickle=False)
                found |= dict(zip(members["slice_id"], block, strict=True))
                bar.update(len(members))
        return pd.Series(found, dtype=object)

    def _predict(self, model: Bundle, members: pd.DataFrame) -> bytes:
        ((shard, _, images),) = iterate_shards(self.catalog, members)
        probabilities = model.predict(images)
        if not np.isfinite(probabilities).all():
            raise BundleError(f"the model gives no number for a slice of {shard}; run retrain again")
        sink = io.BytesIO()
        np.save(sink, probabilities, allow_pickle=False)
        return sink.getvalue()
