"""Triage: what the archive looks like before anybody reads it, and what in it would spoil the learning."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.chaining import chaining
from scanloop.archive.splits import proven_manifest
from scanloop.artifacts import read_json, read_table, write_bytes, write_json, write_table
from scanloop.build import step
from scanloop.config import TriageConfig
from scanloop.embedding.blocks import drawn, in_order, workers
from scanloop.embedding.cache import StoredVectors, stored_vectors
from scanloop.learning.probe import Reading, draw, origins, probe
from scanloop.triage.agreement import agreement
from scanloop.triage.clusters import cluster
from scanloop.triage.density import NOISE, density_clusters
from scanloop.triage.near import SAMPLED, References, known_pairs, pushed_out, threshold, unit
from scanloop.triage.neighbours import build_index
from scanloop.triage.projection import Projection, fit_projection
from scanloop.types import Float, Labels, Single


@dataclass(frozen=True)
class TriageSummary:
    """What the archive looks like.

    Attributes:
        k: Clusters found.
        components: Principal components kept.
        silhouette: The chosen one on squared distances; None where none was computed.
        ari: Agreement of clusters and labels; None with too few labels.
        nmi: Agreement of clusters and labels; None with too few labels.
        pushed_out: Pool images that leave the pool as near-duplicates of held-out or labelled ones.
        largest_group: Share of the archive in its largest group, 0..1.
        recall: Of the search index, 0..1.
        verdict: What the clusters say of the labels.
    """

    k: int
    components: int
    silhouette: float | None
    ari: float | None
    nmi: float | None
    pushed_out: int
    largest_group: float
    recall: float
    verdict: str


@step("triage")
def triage(config: TriageConfig, *, catalog: Path, embeddings: Path, output: Path) -> TriageSummary:
    """Principal components and clusters of the training part, near-duplicates, origins, and an index for search.

    Validation and test slices are left out of what is fitted: nothing that is learnt may have seen them. They are
    looked at where they must be: pool images that are near to them are pushed out of the pool.

    Args:
        config: Variance to keep, clusters, and rates.
        catalog: Artifact of `ingest`.
        embeddings: Artifact of `embed`.
        output: Directory for the triage.

    Raises:
        LeakageError: A group crosses the splits, or the manifest and the lists of groups disagree.
    """
    manifest = proven_manifest(catalog)
    facts = read_json(catalog / "catalog.json")
    rows = manifest[manifest["split"] == "train"].reset_index(drop=True)
    stored = stored_vectors(embeddings, rows["slice_id"].tolist())
    projection = fit_projection((vectors for _, vectors in stored), config.variance)
    points, plane = _coordinates(projection, stored, len(rows))
    labels, clustered = _clusters(points, config)
    agreed = agreement(*_both_known(labels, rows, facts["classes"]), config.seed)
    sink = io.BytesIO()
    np.savez(sink, mean=projection.mean, components=projection.components, explained=projection.explained)
    write_bytes(output / "pca.npz", sink.getvalue())
    frame = pd.DataFrame({"slice_id": rows["slice_id"], "cluster": labels, "x": plane[:, 0], "y": plane[:, 1]})
    write_table(output, "clusters.parquet", frame)
    near = _push_out(manifest, embeddings, output, facts, config)
    chained = chaining(manifest, read_table(catalog, "sources.parquet"), int(facts.get("near_duplicate_bits", 8)))
    everything = stored_vectors(embeddings)
    ids = read_table(embeddings, "index.parquet")["slice_id"].tolist()
    index = build_index(output, everything, ids, everything.dimension, config.exact_search_slices, config.seed)
    kept: dict[str, Any] = {"components": len(projection.components), "variance": float(projection.explained.sum())}
    write_json(output / "triage.json", clustered | kept | asdict(agreed) | {
        "slices": len(rows),
        "pushed_out": near,
        "largest_group": asdict(chained) | {"warning": chained.warning(config.largest_group_share)},
        "origins": _origins(rows, catalog, embeddings, config.seed),
    })  # fmt: skip
    silhouette = clustered["silhouette"].get(clustered["k"])
    recall, pushed = float(index.facts["recall"]["value"]), int(near["images"])
    return TriageSummary(
        clustered["k"], kept["components"], silhouette, agreed.ari, agreed.nmi, pushed, chained.share, recall,
        agreed.verdict,
    )  # fmt: skip


def _coordinates(projection: Projection, stored: StoredVectors, rows: int) -> tuple[Single, Float]:
    """Coordinates (rows, components) in float32, to cluster, and the first two in float64, to draw."""
    points = np.empty((rows, len(projection.components)), dtype=np.float32)
    plane = np.empty((rows, 2))
    with workers() as pool:
        for places, values in in_order(pool, lambda part: (part[0], projection(part[1])), stored):
            points[places], plane[places] = values, values[:, :2]
    return points, plane


def _clusters(points: Single, config: TriageConfig) -> tuple[Labels, dict[str, Any]]:
    """Cluster of each row, and what `triage.json` says of the clusters."""
    facts: dict[str, Any]
    if config.method == "kmeans":
        found = cluster(points, range(config.k_min, config.k_max + 1), config.silhouette_sample, config.seed)
        labels, facts = found.labels, {"silhouette": found.silhouette, "silhouette_euclidean": found.euclidean}
        facts |= {"k": found.k}
    else:
        dense = density_clusters(points, config.min_samples, config.graph_neighbours, config.seed)
        labels, facts = dense.labels, {"silhouette": {}, "silhouette_euclidean": None, "k": dense.k}
        facts |= {"epsilon": dense.epsilon, "noise_share": dense.noise_share, "min_samples": config.min_samples}
    sizes = np.bincount(labels[labels != NOISE], minlength=facts["k"])
    return labels, facts | {"method": config.method, "sizes": sizes}


def _both_known(clusters: Labels, rows: pd.DataFrame, classes: list[str]) -> tuple[Labels, Labels]:
    """Clusters and classes of the labelled rows; noise is a cluster of its own here."""
    labelled = rows["label"].notna().to_numpy()
    return clusters[labelled], np.array([classes.index(label) for label in rows["label"][labelled]], dtype=np.int64)


def _push_out(
    manifest: pd.DataFrame, embeddings: Path, output: Path, facts: dict[str, Any], config: TriageConfig
) -> dict[str, Any]:
    """Write `pushed_out.parquet`; what `triage.json` says of it."""

    def vectors(rows: Labels) -> Single:
        found = np.empty((len(rows), dimension), dtype=np.float32)
        for places, part in stored_vectors(embeddings, manifest["slice_id"].iloc[rows].tolist()):
            found[places] = unit(part)
        return found

    dimension = stored_vectors(embeddings, []).dimension
    held_out, labelled = (manifest["split"] != "train").to_numpy(), manifest["label"].notna().to_numpy()
    chosen, pool = np.flatnonzero(held_out | labelled), np.flatnonzero(~held_out & ~labelled)
    sample = drawn(len(manifest), SAMPLED, config.seed)
    pairs = known_pairs(manifest, int(facts.get("near_duplicate_bits", 8)), config.seed)
    cosines = np.einsum("ij,ij->i", vectors(pairs[:, 0]), vectors(pairs[:, 1])).astype(np.float64)
    groups = manifest["group_id"].to_numpy(dtype=object)
    limit = threshold(vectors(sample), groups[sample], cosines, len(chosen), config.near_rate)
    ids = manifest["slice_id"].to_numpy(dtype=object)
    kinds = np.where(held_out[chosen], "held_out", "labelled").astype(object)
    parts = stored_vectors(embeddings, ids[pool].tolist())
    table = pushed_out(parts, ids[pool].tolist(), References(ids[chosen], vectors(chosen), kinds), limit.cosine)
    write_table(output, "pushed_out.parquet", table)
    by_reason = {str(reason): int(count) for reason, count in table["reason"].value_counts().items()}
    copies = {"labelled_with_copies_in_pool": int(facts.get("labelled_with_copies_in_pool", 0))}
    return {"images": len(table), "pool": len(pool), "by_reason": by_reason, "threshold": asdict(limit)} | copies


def _origins(rows: pd.DataFrame, catalog: Path, embeddings: Path, seed: int) -> list[Reading]:
    """What can be read of an image's origin from its embedding, attribute by attribute."""
    has = (catalog / "attributes.parquet").exists()
    attributes = read_table(catalog, "attributes.parquet") if has else None
    readings = []
    for name, values in origins(rows, attributes).items():
        part = rows.iloc[draw(values, seed)]
        stored = stored_vectors(embeddings, part["slice_id"].tolist())
        vectors = np.empty((len(part), stored.dimension), dtype=np.float16)
        for places, found in stored:
            vectors[places] = found
        known, groups, labels = values.loc[part.index].to_numpy(), part["group_id"].to_numpy(), part["label"].to_numpy()
        readings.append(probe(name, vectors, known, groups, labels, seed))
    return readings
