"""torchvision, made importable where its wheel was built for CUDA and torch was not."""

import sys
from typing import Any

import torch

_kept: list[Any] = []  # the registration lasts as long as the library object


def torchvision() -> Any:
    """The torchvision module; its compiled operators (nms, JPEG reading) may be missing, its models are whole.

    torchvision's wheels on PyPI link CUDA. Beside a CPU build of torch its C++ library stays unloaded, and the import
    fails on the schemas of two operators (pytorch/vision issues 9077 and 9085); declaring them lets it succeed.
    """
    try:
        import torchvision as module
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision as module
    return module
