"""The thresholds that a bundle holds, chosen where `evaluate` chooses them: on images held out of a fold."""

from collections.abc import Sequence

from scanloop.bundle.points import OperatingPoints
from scanloop.errors import ConfigError
from scanloop.evaluation.operating_points import Flags, threshold_for
from scanloop.sections.serving import ARGMAX, ServedPointsConfig
from scanloop.types import Float


def check_default_point(config: ServedPointsConfig, classes: Sequence[str]) -> None:
    """Return if the default can be had, before anything is trained.

    Raises:
        ConfigError: It is a threshold, and there are more than two classes.
    """
    if config.default != ARGMAX and len(classes) != 2:
        raise ConfigError(
            f"retrain.operating_points.default: {config.default!r} labels two classes, and there are {len(classes)}; "
            f"set it to {ARGMAX}"
        )


def choose_points(
    scores: Float, positive: Flags, index: int, classes: int, config: ServedPointsConfig
) -> OperatingPoints:
    """Argmax, and for two classes the thresholds that reach the aims on images that the models did not learn from.

    Args:
        scores: (n,) probabilities of the positive class, out of fold, of images that were drawn at random.
        positive: (n,) whether each is of the class.
        index: Of the positive class.
        classes: How many there are.
        config: Aims, and the default.
    """
    found: dict[str, float | None] = {ARGMAX: None}
    if classes == 2 and positive.any() and not positive.all():
        for target, rates in (("tpr", config.target_tpr), ("fpr", config.target_fpr)):
            found |= {f"{target} {rate:g}": threshold_for(target, rate, scores, positive) for rate in rates}
    return OperatingPoints(found, config.default, index, len(scores))
