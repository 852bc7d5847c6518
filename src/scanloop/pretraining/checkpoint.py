"""The whole state of a training, in one file of plain tensors: what continues from it ends with the same bits."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from scanloop.artifacts import write_bytes
from scanloop.config import EncoderConfig
from scanloop.errors import ArtifactError
from scanloop.pretraining import distributed
from scanloop.pretraining.averaging import Average
from scanloop.pretraining.collapse import Health
from scanloop.pretraining.method import Method


@dataclass
class Progress:
    """What happened so far, one entry an epoch.

    Attributes:
        losses: Mean loss.
        health: Health of the projections of the epoch's last batch.
    """

    losses: list[float] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)


@dataclass
class State:
    """Everything that a checkpoint holds.

    Attributes:
        method: Weights, and for MoCo the slow ones, the queue and its place.
        optimizer: With its moments.
        average: Of the encoder; None where none is kept.
        progress: Epochs done. The counter of early stopping follows from the losses, the draws from the epoch's number.
    """

    method: Method
    optimizer: torch.optim.AdamW
    average: Average | None
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path, config: EncoderConfig) -> None:
        """Write the state; the file is whole or absent."""
        facts = {
            "config": config.model_dump_json(),
            "progress": json.dumps(asdict(self.progress)),
            "averaged": str(self.average.updates if self.average else 0),
        }
        write_bytes(path, save(self._tensors(), metadata=facts))

    def load(self, path: Path, config: EncoderConfig) -> None:
        """Continue from a checkpoint, on every process; without one nothing changes.

        Raises:
            ArtifactError: The file is damaged, or is of a training with other settings.
        """
        found = distributed.share(path.read_bytes() if distributed.rank() == 0 and path.is_file() else b"")
        if not found:
            return
        tensors, facts = _read(found, path)
        if facts["config"] != config.model_dump_json():
            raise ArtifactError(f"{path} is of a training with other settings; remove it, or train elsewhere")
        self.method.load_state_dict(_below("method", tensors))
        groups = self.optimizer.state_dict()["param_groups"]
        weights = self.optimizer.param_groups[0]["params"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer", tensors).items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = _laid_out(tensor, weights[int(index)])
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self.average is not None:
            self.average.encoder.load_state_dict(_below("average", tensors))
            self.average.updates = int(facts["averaged"])
        progress = json.loads(facts["progress"])
        self.progress = Progress(progress["losses"], [Health(**one) for one in progress["health"]])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.encoder.state_dict().items()}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _read(payload: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = load(payload)
        length = int.from_bytes(payload[:8], "little")
        facts: dict[str, str] = json.loads(payload[8 : 8 + length])["__metadata__"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); remove it, and the training starts again") from error
    return tensors, facts


def _laid_out(tensor: Tensor, weight: Tensor) -> Tensor:
    """The tensor with the weight's strides: another layout takes another path through AdamW, with other bits."""
    return torch.empty_like(weight).copy_(tensor) if tensor.shape == weight.shape else tensor


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
