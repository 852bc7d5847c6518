"""Write the bundle: export, compare with torch, describe, seal with digests."""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scanloop.artifacts import KINDS, write_bytes, write_json
from scanloop.bundle import abstention, exemplars, points
from scanloop.bundle.card import model_card
from scanloop.bundle.engines.engine import Squares
from scanloop.bundle.engines.onnx_engine import OnnxEngine
from scanloop.bundle.export import to_onnx, torch_logits
from scanloop.bundle.facts import BundleFacts
from scanloop.bundle.reference import largest_difference, squares_of, to_npz
from scanloop.errors import BundleError
from scanloop.provenance import file_digest
from scanloop.types import Float

if TYPE_CHECKING:
    from torch import nn

SEAL = "bundle.json"
"""The file that holds the digests of all others; its own digest names the bundle."""

ABOUT = ("architecture", "encoder", "data_digest", "counts", "metrics", "training", "gates")
"""Facts that stand in it beside the digests."""


def write_bundle(output: Path, model: "nn.Module", facts: BundleFacts) -> None:
    """Write every file of a bundle but `out_of_fold.parquet` and `learnt.parquet`, which must be there to be sealed in.

    Args:
        output: Directory to fill.
        model: torch classifier, normalised (n, 3, s, s) in, logits (n, classes) out; left as it is.
        facts: All else.

    Raises:
        BundleError: The exported network does not give torch's probabilities, or a file is missing.
    """
    model = _as_served(model)
    squares = squares_of(facts.preprocess, facts.reference)
    exported = to_onnx(model, facts.preprocess.input_px)
    write_bytes(output / "model.safetensors", _weights(model))
    write_bytes(output / "model.onnx", exported)
    write_bytes(output / "reference.npz", to_npz(squares, _compare(model, exported, squares, facts)))
    write_json(output / "calibration.json", facts.calibration.as_json())
    write_json(output / "conformal.json", facts.conformal.as_json())
    write_json(output / points.FILE, facts.points.as_json())
    write_json(output / abstention.FILE, facts.abstention.as_json())
    write_bytes(output / abstention.FAMILIAR, facts.abstention.familiar.to_npz())
    write_bytes(output / exemplars.FILE, facts.exemplars.to_npz())
    write_json(output / "classes.json", {"classes": facts.classes, "positive_class": facts.positive_class})
    limits = {"min_side_px": facts.min_side_px, "max_pixels": facts.max_pixels}
    write_json(output / "preprocess.json", asdict(facts.preprocess) | limits)
    write_bytes(output / "MODEL_CARD.md", model_card(facts).encode())
    _seal(output, facts)


def _as_served(model: "nn.Module") -> "nn.Module":
    """Copy of a module in evaluation mode, float32, on the CPU, in torch's default memory layout."""
    import torch

    served = copy.deepcopy(model).eval().float().cpu().requires_grad_(False)
    served.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in torch's stubs
    return served


def _weights(model: "nn.Module") -> bytes:
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that share memory.
    return save({name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()})


def _compare(model: "nn.Module", exported: bytes, squares: Squares, facts: BundleFacts) -> Float:
    """Torch's probabilities of the reference slices, once ONNX Runtime has given the same."""
    calibrator = facts.calibration.calibrator
    logits = torch_logits(model, facts.preprocess.normalised(squares))
    if logits.shape != (len(squares), len(facts.classes)):
        raise BundleError(f"the model gives {logits.shape} for {len(squares)} slices of {len(facts.classes)} classes")
    expected = calibrator(logits)
    served = OnnxEngine(exported, facts.preprocess).run_squares(squares)
    difference = largest_difference(calibrator(served.logits), expected)
    if not difference <= (gate := facts.gates["float32"]):
        raise BundleError(
            f"the exported network gives other probabilities than torch (by {difference:.2g}, at most {gate:g});"
            " look for weights that are not finite, and for layers that ONNX cannot express"
        )
    return expected


def _seal(output: Path, facts: BundleFacts) -> None:
    others = [name for name in KINDS["bundle"] if name != SEAL]
    if missing := [name for name in others if not (output / name).is_file()]:
        raise BundleError(f"{output}: write {', '.join(missing)} before the bundle, so that its digest is sealed in")
    about = {name: getattr(facts, name) for name in ABOUT}
    write_json(output / SEAL, about | {"files": {name: file_digest(output / name) for name in others}})
