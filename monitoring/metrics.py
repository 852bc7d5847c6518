"""Every metric that the exporter exposes: its name is written here and nowhere else in Python."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Attributes:
        name: Name in Prometheus.
        help: What a value means.
        labels: Labels besides `run`.
        kind: Type in Prometheus.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "summary"] = "gauge"


DRIFT_SCORE = Metric("scanloop_drift_score", "Distance of the current confidence from the reference (p-value for ks).")
DRIFT_THRESHOLD = Metric("scanloop_drift_threshold", "Score from which drift is called (down from which, for ks).")
DRIFT_DETECTED = Metric("scanloop_drift_detected", "1 if the confidence has drifted; absent with too few slices.")
POOL_CONFIDENCE = Metric(
    "scanloop_pool_confidence", "Confidence on the pool that drift compares, 0 to 1.", ("quantile",), kind="summary"
)
SPEND = Metric("scanloop_spend_euros", "Euros spent on node time and labels.")
SPEND_CAP = Metric("scanloop_spend_cap_euros", "Most euros that the run may spend.")
QUEUE_LABELS = Metric("scanloop_queue_labels", "Slices in the queue that have no label yet.")
QUEUE_PRICE = Metric("scanloop_queue_price_euros", "Price of the labels that are still open, in euros.")
PSEUDO_LABEL_POOL = Metric("scanloop_pseudo_label_pool", "Pool slices considered for a pseudo-label.")
PSEUDO_LABEL_CANDIDATES = Metric("scanloop_pseudo_label_candidates", "Pool slices that pass the rule.")
PSEUDO_LABEL_PROMOTED = Metric("scanloop_pseudo_label_promoted", "Pool slices whose pseudo-label counts.")
QUARANTINED_IMAGES = Metric("scanloop_quarantined_images", "Images kept out of the catalog, by reason.", ("reason",))
ARTIFACT_AGE = Metric("scanloop_artifact_age_seconds", "Seconds since the artifact was finished.", ("artifact",))
HOLDOUT_F1 = Metric("scanloop_holdout_f1_lower_bound", "Lower bound of the deployed arm's hold-out macro-F1.")
RUN_UNREADABLE = Metric("scanloop_run_unreadable", "1 if an artifact of the run cannot be read.")

METRICS: tuple[Metric, ...] = (
    DRIFT_SCORE, DRIFT_THRESHOLD, DRIFT_DETECTED, POOL_CONFIDENCE, SPEND, SPEND_CAP, QUEUE_LABELS, QUEUE_PRICE,
    PSEUDO_LABEL_POOL, PSEUDO_LABEL_CANDIDATES, PSEUDO_LABEL_PROMOTED, QUARANTINED_IMAGES, ARTIFACT_AGE, HOLDOUT_F1,
    RUN_UNREADABLE,
)  # fmt: skip
"""All of them, in the order in which they are exposed."""
