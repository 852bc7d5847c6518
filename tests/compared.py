"""Losses of lightly, the library that ours are held against."""

from typing import Any


def lightly_nt_xent(temperature: float, bank: tuple[int, int] | int = 0) -> Any:
    """lightly's loss; `bank` is the size and width of its memory bank."""
    from scanloop.embedding.vision import torchvision

    torchvision()
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=temperature, memory_bank_size=bank)
