"""The curve of a training, as a picture whose bytes depend on the numbers alone."""

import io
import math

from matplotlib.ticker import MaxNLocator

from scanloop.evaluation.drawing import BLUE, GREEN, label_axes, new_figure
from scanloop.pretraining.collapse import Health


def loss_curve(losses: list[float], health: list[Health], chance: float) -> bytes:
    """PNG of the loss, beside that of an encoder that tells nothing apart, and of the spread of the projections.

    Args:
        losses: Mean loss of each epoch.
        health: Of each epoch.
        chance: Loss of projections that are all the same.
    """
    epochs = range(1, len(losses) + 1)
    figure, (left, right) = new_figure(8, 3, columns=2)
    left.plot(epochs, losses, color=BLUE, marker="o", markersize=3)
    if math.isfinite(chance):
        left.axhline(chance, color="#777777", linewidth=0.8, linestyle="--")
    label_axes(left, "Loss (dashed: nothing told apart)", "epoch", "mean loss")
    right.plot(epochs, [one.spread for one in health], color=GREEN, marker="s", markersize=3)
    right.set_ylim(0, 1.05)
    label_axes(right, "Spread of the projections", "epoch", "spread, 0 to 1")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return sink.getvalue()
