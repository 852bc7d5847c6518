"""Evidently's word on a confidence: its score, and its page for people."""

import html
import os
from dataclasses import dataclass

import pandas as pd

from scanloop.types import Float

COLUMN = "confidence"

EMPTY_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Confidence drift</title></head>
<body></body>
</html>
"""
"""Page without a comparison; the verdict says why there is none."""

VERDICT = '<p role="status" style="margin: 24px; font: 18px sans-serif">{}</p>'


@dataclass(frozen=True)
class EvidentlyReport:
    """What Evidently found.

    Attributes:
        score: Distance between the two samples; a p-value for "ks".
        page: Self-contained HTML.
    """

    score: float
    page: str


def compare(reference: Float, current: Float, method: str, threshold: float) -> EvidentlyReport:
    """Let Evidently compare two samples of a confidence.

    Args:
        reference: (n,), 0..1, at least one row.
        current: (m,), 0..1, at least one row.
        method: "psi", "ks", "wasserstein" or "jensenshannon".
        threshold: Score from which the page calls it drift (p-value down from which, for "ks").
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently reads it when it is imported; no page leaves this machine
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import ValueStats

    # Without a definition Evidently guesses the column's type from its values, and takes a few values for categories.
    definition = DataDefinition(numerical_columns=[COLUMN])
    then, now = (Dataset.from_pandas(pd.DataFrame({COLUMN: sample}), definition) for sample in (reference, current))
    metrics = [ValueDrift(column=COLUMN, method=method, threshold=threshold), ValueStats(column=COLUMN)]
    snapshot = Report(metrics, include_tests=True).run(now, then)
    values = [
        metric["value"] for metric in snapshot.dict()["metrics"] if metric["metric_name"].startswith("ValueDrift(")
    ]
    return EvidentlyReport(float(values[0]), snapshot.get_html_str(as_iframe=False))


def with_verdict(page: str, verdict: str) -> str:
    """The page with our verdict on top: Evidently's own headline knows the threshold, but not what chance gives."""
    return page.replace("<body>", f"<body>{VERDICT.format(html.escape(verdict))}", 1)
