"""Triage: what the archive looks like before anybody reads it, and whether its structure follows the labels."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanloop.artifacts import read_json, read_table, write_bytes, write_json, write_table
from scanloop.build import step
from scanloop.config import TriageConfig
from scanloop.embedding.blocks import in_order, workers
from scanloop.embedding.cache import StoredVectors, stored_vectors
from scanloop.triage.agreement import agreement
from scanloop.triage.clusters import cluster
from scanloop.triage.projection import Projection, fit_projection
from scanloop.types import Float, Single


@dataclass(frozen=True)
class TriageSummary:
    """Clusters found, components kept, the chosen silhouette on squared distances, agreement (null with too few)."""

    k: int
    components: int
    silhouette: float | None
    ari: float | None
    nmi: float | None
    verdict: str


@step("triage")
def triage(config: TriageConfig, *, catalog: Path, embeddings: Path, output: Path) -> TriageSummary:
    """Principal components and clusters of the training part, compared with the labels at hand.

    Validation and test slices are left out: nothing that is learnt may have seen them.

    Args:
        config: Variance to keep and range of k.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        output: Directory for the triage.
    """
    manifest = read_table(catalog, "manifest")
    rows = manifest[manifest["split"] == "train"].reset_index(drop=True)
    stored = stored_vectors(embeddings, rows["slice_id"].tolist())
    projection = fit_projection((vectors for _, vectors in stored), config.variance)
    points, plane = _coordinates(projection, stored, len(rows))
    found = cluster(points, range(config.k_min, config.k_max + 1), config.silhouette_sample, config.seed)
    labelled = rows["label"].notna().to_numpy()
    classes = read_json(catalog / "catalog.json")["classes"]
    labels = np.array([classes.index(label) for label in rows["label"][labelled]], dtype=np.int64)
    agreed = agreement(found.labels[labelled], labels, config.seed)
    sink = io.BytesIO()
    np.savez(sink, mean=projection.mean, components=projection.components, explained=projection.explained)
    write_bytes(output / "pca.npz", sink.getvalue())
    frame = pd.DataFrame({"slice_id": rows["slice_id"], "cluster": found.labels, "x": plane[:, 0], "y": plane[:, 1]})
    write_table(output, "clusters.parquet", frame)
    facts = {
        "k": found.k,
        "silhouette": found.silhouette,
        "silhouette_euclidean": found.euclidean,
        "components": len(projection.components),
        "variance": float(projection.explained.sum()),
        "sizes": np.bincount(found.labels, minlength=found.k),
        "slices": len(rows),
    }
    write_json(output / "triage.json", facts | asdict(agreed))
    return TriageSummary(
        found.k, len(projection.components), found.silhouette.get(found.k), agreed.ari, agreed.nmi, agreed.verdict
    )


def _coordinates(projection: Projection, stored: StoredVectors, rows: int) -> tuple[Single, Float]:
    """Coordinates (rows, components) in float32, to cluster, and the first two in float64, to draw."""
    points = np.empty((rows, len(projection.components)), dtype=np.float32)
    plane = np.empty((rows, 2))
    with workers() as pool:
        for places, values in in_order(pool, lambda part: (part[0], projection(part[1])), stored):
            points[places], plane[places] = values, values[:, :2]
    return points, plane
