"""What one of several processes does in the tests of training together: started by torchrun, with a folder."""

import json
import os
import sys
from pathlib import Path

import torch
from pretrained import slices

from scanloop.config import PretrainConfig
from scanloop.embedding.encoders import new_encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.pretraining.distributed import company, gather, rank, share, size
from scanloop.pretraining.trainer import train_encoder


def gathered_gradient() -> list[list[float]]:
    """Mean over processes of the gradient of a loss of all processes' rows, as DistributedDataParallel takes it."""
    rows = (torch.arange(4.0).view(2, 2) + 4 * rank()).requires_grad_()
    everything = gather(rows)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    (everything.square() * weights).sum().backward()
    mean = torch.zeros(4, 2)
    assert rows.grad is not None
    mean[2 * rank() : 2 * rank() + 2] = rows.grad / size()
    torch.distributed.all_reduce(mean)
    return [everything.tolist(), mean.tolist()]


def main(folder: Path) -> None:
    """Train together, and leave what came out of it under the process's number."""
    torch.set_num_threads(1)
    with company():
        told = share(b"from the first" if rank() == 0 else b"from another")
        found: dict[str, object] = {"told": told.decode(), "gathered": gathered_gradient()}
        for method in ("simclr", "moco"):
            config = PretrainConfig(
                encoder="squeezenet1_1", method=method, input_px=32, epochs=2, batch_size=16, accumulate=2, seed=2
            )  # type: ignore[arg-type]
            encoder = new_encoder("squeezenet1_1", 2)
            trained = train_encoder(
                encoder, slices(), Preprocess(input_px=32), config, folder / f"{method}.safetensors"
            )
            found[method] = trained.progress.losses
            found[f"{method}_weight"] = float(encoder.blocks[0][0].weight.double().abs().sum())
        (folder / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
