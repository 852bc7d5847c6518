"""Where the encoder comes from: the section `pretrain` of a configuration."""

from typing import Literal, Self

from pydantic import Field, model_validator

from scanloop.sources import Positive, Section, Share


class EncoderConfig(Section):
    """Where an encoder comes from: self-supervised training on the pool, a weights file, or both."""

    encoder: str = Field(
        "smallcnn",
        pattern=r"^(smallcnn|resnet18|resnet50|squeezenet1_1|timm:[A-Za-z0-9_.-]+)$",
        description="smallcnn, resnet18, resnet50, squeezenet1_1, or timm:NAME where timm is installed",
    )
    weights: str | None = Field(None, description="File to start from, or 'imagenet' to download torchvision's")
    method: Literal["simclr", "moco", "none"] = Field("simclr", description="'none' takes the weights as they are")
    input_px: int = Field(64, ge=16, le=512)
    epochs: int = Field(8, ge=1, le=1000)
    batch_size: int = Field(128, ge=4, description="Slices an update of the weights, over all processes")
    accumulate: int = Field(1, ge=1, le=64, description="Micro-batches of an update; negatives are a micro-batch's")
    max_slices: int = Field(100_000, ge=8, description="Training slices drawn, once for all epochs, at most")
    learning_rate: Positive = 1e-3
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: Positive = Field(1.0, description="Gradients of a larger norm are scaled down to it")
    temperature: Positive = Field(0.2, description="Of NT-Xent and InfoNCE")
    projection: int = Field(128, ge=8, description="Width of both layers of the projection head")
    queue: int = Field(4096, ge=2048, le=8192, description="moco: negatives kept; at most the slices there are")
    momentum: float = Field(0.99, ge=0.5, lt=1, description="moco: share of the slow encoder that an update keeps")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Above 0 an average of the weights is written, e.g. 0.999")
    augmentation: Literal["strong", "weak"] = Field("strong", description="How far two views of a slice differ")
    modality: Literal["mri", "ct", "xray", "ultrasound"] = Field(
        "mri", description="Whose views; X-ray and CT are not mirrored"
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: products and convolutions under autocast"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU, where there is one")
    patience: int = Field(0, ge=0, description="Epochs without a lower loss after which training ends; 0: never")
    least_spread: Share = Field(0.05, description="A lower spread of the projections is a collapse; 0: no alarm")

    @model_validator(mode="after")
    def _weights_given(self) -> Self:
        if self.method == "none" and self.weights is None:
            raise ValueError("method 'none' needs weights: a random encoder learns nothing")
        return self

    @model_validator(mode="after")
    def _micro_batches_hold_a_pair(self) -> Self:
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} parts of 2 or more")
        return self


class PretrainConfig(EncoderConfig):
    """Where the encoder comes from, and which one, if any, stands beside it."""

    beside: EncoderConfig | None = Field(
        None, description="A second encoder whose vectors are put beside the first's, which then is not trained"
    )

    @model_validator(mode="after")
    def _one_is_trained(self) -> Self:
        if self.beside is None:
            return self
        if self.method != "none":
            raise ValueError("with `beside` the second encoder is the one that is trained: set method to 'none'")
        if self.input_px % self.beside.input_px:
            raise ValueError(f"beside.input_px {self.beside.input_px} must divide input_px {self.input_px}")
        return self

    @property
    def trained(self) -> EncoderConfig:
        """The section of the encoder that is trained."""
        return self.beside or self
