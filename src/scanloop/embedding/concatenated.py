"""Two encoders as one: their vectors side by side, each of length 1, from the first one's input."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from scanloop.embedding.preprocess import Preprocess

JOINT, SCALE = "+", "/"
"""In a name: "squeezenet1_1+smallcnn/4" gives smallcnn the images at a quarter of their side."""


class Concatenated(nn.Module):
    """Two encoders as one block, which fine-tuning trains as a whole.

    Each part's vector is divided by its length, so that neither decides alone which slices are near one another. The
    second takes colours of its own: a 1 x 1 convolution brings the first one's normalised input into them.

    Attributes:
        first: Images in, vectors out.
        second: The same, of images whose side is so many times smaller.
        shrink: How many times.
        colours: (3, 3, 1, 1), from the first one's channels to the second's.
        offset: (3,), added to them.
    """

    colours: Tensor
    offset: Tensor

    def __init__(self, first: nn.Module, second: nn.Module, shrink: int) -> None:
        super().__init__()
        self.first, self.second, self.shrink = first, second, shrink
        self.register_buffer("colours", torch.eye(3).view(3, 3, 1, 1))
        self.register_buffer("offset", torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        """Both vectors as maps (n, d, 1, 1) of images (n, 3, s, s) that are normalised as the first one's."""
        others = functional.avg_pool2d(functional.conv2d(images, self.colours, self.offset), self.shrink)
        parts = (self.first(images), self.second(others))
        return torch.cat([functional.normalize(part, dim=1) for part in parts], dim=1)[:, :, None, None]

    def translate(self, first: Preprocess, second: Preprocess) -> None:
        """Set the colours from what either encoder's input looks like."""
        order = [2, 1, 0] if first.bgr != second.bgr else [0, 1, 2]
        mean, std = (torch.tensor(values)[order] for values in (second.mean, second.std))
        self.colours.copy_(torch.diag(torch.tensor(first.std) / std)[order].view(3, 3, 1, 1))
        self.offset.copy_(((torch.tensor(first.mean) - mean) / std)[order])


def parts_of(name: str) -> tuple[str, str, int] | None:
    """Names of the two encoders and the shrinkage in the name of a concatenated one; None for any other name."""
    first, joint, rest = name.partition(JOINT)
    second, _, shrink = rest.rpartition(SCALE)
    return (first, second, int(shrink)) if joint else None
