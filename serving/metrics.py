"""What Prometheus learns of the server, on the registry that holds KServe's own metrics; defined once."""

from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram, Info

LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, denser where an answer on a CPU lies."""

REQUESTS = Counter("scanloop_requests", "Requests for predictions, by protocol and outcome.", ["protocol", "outcome"])

LATENCY = Histogram(
    "scanloop_request_seconds", "From a request's head to its answer, by protocol.", ["protocol"], buckets=LATENCIES
)

BATCH_IMAGES = Histogram(
    "scanloop_batch_images", "Images that ran through the network together.", buckets=(1, 2, 4, 8, 16, 32, 64)
)

QUEUE_DEPTH = Gauge("scanloop_queue_depth_images", "Images that wait for the network.")

IN_FLIGHT = Gauge("scanloop_in_flight_images", "Images that were admitted and are not answered.")

PREDICTIONS = Counter("scanloop_predictions", "Images classified, by the label given to them.", ["label"])

CONFIDENCE = Histogram(
    "scanloop_prediction_confidence",
    "Calibrated probability of the label given, by label.",
    ["label"],
    # Of two classes the more probable one has at least 0.5; what matters happens close to 1.
    buckets=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0),
)

ABSTENTIONS = Counter("scanloop_abstentions", "Images that were left to a reader, by reason.", ["reason"])

EXPLAINED = Counter("scanloop_explained_images", "Images whose heat map was made, each of 64 forward passes.")

SAMPLED = Counter("scanloop_samples", "Images of which hash, embedding and answer were written down.")

SAMPLES_DROPPED = Counter("scanloop_samples_dropped", "Drawn images that were not written: no room, or no disk.")

REJECTED = Counter("scanloop_rejected_requests", "Requests answered with a 4xx or 503, by reason.", ["reason"])

RELOADS = Counter("scanloop_reloads", "New models that were put in place, or were not, by outcome.", ["outcome"])

MODEL = Info("scanloop_model", "The model that is served.")

PROTOCOLS = ("v1", "v2", "grpc")
REASONS = ("out_of_distribution", "low_confidence", "bad_image")


def announce(name: str, digest: str, classes: Sequence[str], engine: str, precision: str) -> None:
    """Publish which model is served, and start each series at zero: rates exist from the first scrape."""
    MODEL.info({"name": name, "digest": digest, "engine": engine, "precision": precision})
    for label in classes:
        PREDICTIONS.labels(label)
        CONFIDENCE.labels(label)
    for reason in REASONS:
        ABSTENTIONS.labels(reason)
    for protocol in PROTOCOLS:
        LATENCY.labels(protocol)


def count(rows: Iterable[tuple[str | None, float, str | None]]) -> None:
    """Count classified images: label (None of one that could not be read), its probability, reason to abstain."""
    for label, confidence, reason in rows:
        if label is not None:
            PREDICTIONS.labels(label).inc()
            CONFIDENCE.labels(label).observe(confidence)
        if reason is not None:
            ABSTENTIONS.labels(reason).inc()
