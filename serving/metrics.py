"""What Prometheus learns of the classifier itself, on the registry that holds KServe's own metrics; defined once."""

from collections.abc import Sequence

from prometheus_client import Counter, Histogram, Info

PREDICTIONS = Counter("scanloop_predictions", "Images classified, by the label given to them.", ["label"])

CONFIDENCE = Histogram(
    "scanloop_prediction_confidence",
    "Calibrated probability of the label given, by label.",
    ["label"],
    # Of two classes the more probable one has at least 0.5; what matters happens close to 1.
    buckets=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0),
)

REJECTED = Counter("scanloop_rejected_requests", "Requests answered with a 4xx, by reason.", ["reason"])

MODEL = Info("scanloop_model", "The model that is served.")


def announce(name: str, digest: str, classes: Sequence[str]) -> None:
    """Publish which model is served, and start each label's series at zero: rates exist from the first scrape."""
    MODEL.info({"name": name, "digest": digest})
    for label in classes:
        PREDICTIONS.labels(label)
        CONFIDENCE.labels(label)


def count_prediction(label: str, confidence: float) -> None:
    """Count one classified image; the confidence is in 0..1."""
    PREDICTIONS.labels(label).inc()
    CONFIDENCE.labels(label).observe(confidence)
