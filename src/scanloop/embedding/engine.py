"""The embedding engine: slices in, float16 vectors out, batch by batch, in the precision that was asked for."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from scanloop.embedding.encoders import Encoder
from scanloop.embedding.preprocess import Preprocess
from scanloop.errors import ConfigError
from scanloop.types import Half, Image

Precision = Literal["float32", "bf16", "int8"]


class Engine:
    """An encoder made ready to embed.

    In float32 it runs in torch, channels last (1.6x faster than channels first on CPU), on the GPU where there is one.
    In bf16 and int8 it is compiled for the CPU (`scanloop.embedding.compiled`).
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        batch_size: int,
        precision: Precision = "float32",
        sample: Sequence[Image] = (),
    ) -> None:
        """Make an engine.

        Args:
            encoder: To embed with; put into evaluation mode.
            preprocess: What its input needs.
            batch_size: Slices a forward pass.
            precision: Of the numbers inside the network; vectors are float16 in any case.
            sample: Slices that int8 is calibrated with; not used otherwise.

        Raises:
            ConfigError: The precision needs a sample or a package that is missing.
        """
        self.encoder = encoder.eval()
        self.preprocess = preprocess
        self.batch_size = batch_size
        self._forward = self._torch() if precision == "float32" else self._compiled(precision, sample)

    def __call__(self, images: Sequence[Image]) -> Half:
        """Embeddings of slices.

        Args:
            images: uint8 slices, (h, w) or (h, w, 3), range 0..255.

        Returns:
            float16 (n, dimension), in the order of the slices.
        """
        vectors = np.empty((len(images), self.encoder.dimension), dtype=np.float16)
        for start in range(0, len(images), self.batch_size):
            vectors[start : start + self.batch_size] = self._forward(images[start : start + self.batch_size])
        return vectors

    def _torch(self) -> Callable[[Sequence[Image]], Half]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = self.encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def forward(images: Sequence[Image]) -> Half:
            batch = torch.from_numpy(self.preprocess(images)).to(device, memory_format=torch.channels_last)
            with torch.inference_mode():
                vectors: Half = encoder(batch).half().cpu().numpy()
            return vectors

        return forward

    def _compiled(self, precision: Precision, sample: Sequence[Image]) -> Callable[[Sequence[Image]], Half]:
        from scanloop.embedding.compiled import compile_encoder
        from scanloop.embedding.quantisation import calibrate
        from scanloop.embedding.squares import squares

        if precision == "int8" and not sample:
            raise ConfigError("embed.precision int8 needs slices to calibrate with; set embed.precision to bf16")
        calibration = calibrate(self.encoder, self.preprocess(sample)) if precision == "int8" else None
        run = compile_encoder(self.encoder, self.preprocess, self.batch_size, torch.get_num_threads(), calibration)

        def forward(images: Sequence[Image]) -> Half:
            batch = squares(images, self.preprocess)
            missing = self.batch_size - len(images)
            whole = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch
            return run(whole)[: len(images)].astype(np.float16)

        return forward
