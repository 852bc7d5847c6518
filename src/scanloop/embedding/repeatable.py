"""Equal bits from equal inputs: what torch needs beside seeds."""

import torch

VECTOR_FUNCTIONS = ("sqrt", "exp", "log", "sin", "cos", "tanh", "erf")
"""Functions that torch computes with MKL's vector library, as far as training uses them."""


def make_repeatable() -> None:
    """Have torch refuse what differs from run to run, and settle which fast functions its threads will use.

    MKL's vector library chooses its kernels at its first call. Where two threads make that call at once, one of them
    can get through with a kernel of lower precision: on a busy machine the first step of AdamW, which takes a square
    root, differed in half of a tensor in about one process of ten. One call on one thread settles the choice.
    """
    torch.use_deterministic_algorithms(True)
    for name in VECTOR_FUNCTIONS:
        getattr(torch, name)(torch.full((16,), 0.5))
