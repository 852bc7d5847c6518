"""Mean teacher: the model must say of one view what the average of its own past says of another (arXiv:1703.01780)."""

from math import exp

from torch import Tensor


class MeanTeacher:
    """The loss of unlabelled images: squared distance of two predictions, weighed in by degrees.

    Attributes:
        weight: Factor once it is weighed in.
        ramp_steps: Updates over which the factor grows from almost nothing, since an early teacher knows nothing.
    """

    def __init__(self, weight: float, ramp_steps: int) -> None:
        self.weight, self.ramp_steps = weight, ramp_steps
        self._step = 0

    def __call__(self, _weak: Tensor, strong: Tensor, teacher: Tensor) -> Tensor:
        """Scalar loss from logits (n, classes): the model's of the strong view, the teacher's of the weak one."""
        self._step += 1
        share = min(1.0, self._step / max(1, self.ramp_steps))
        factor = self.weight * exp(-5 * (1 - share) ** 2)
        distance = (strong.softmax(dim=1) - teacher.detach().softmax(dim=1)) ** 2
        return factor * distance.sum(dim=1).mean()
