"""A process that embeds and may be killed: what the tests of `embed` under kills share."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanloop.config import EmbedConfig

CONTEXT: Any = multiprocessing.get_context("forkserver")
"""Processes forked from one that has imported everything and run nothing: they start in milliseconds."""
CONTEXT.set_forkserver_preload(["torch", "scanloop.steps.embed", "scanloop.embedding.torch_backend"])


@dataclass(frozen=True)
class Work:
    """What a process does: a part of the shards, or the whole step where the part is None."""

    config: EmbedConfig
    catalog: Path
    encoder: Path
    run: Path
    part: str | None = None

    def __call__(self) -> None:
        """Do it, on one thread: several such processes share the cores."""
        import torch

        from scanloop.steps.embed import embed
        from scanloop.steps.embed_part import embed_part

        torch.set_num_threads(1)
        if self.part is None:
            embed(self.config, catalog=self.catalog, encoder=self.encoder, output=self.run / "embeddings")
        else:
            embed_part(self.config, self.part, catalog=self.catalog, encoder=self.encoder, run_folder=str(self.run))

    def start(self) -> Any:
        """The process, started."""
        process = CONTEXT.Process(target=self)
        process.start()
        return process
