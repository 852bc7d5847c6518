"""What a study is asked to do, checked before anything is computed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scanloop.sources import Positive, Section

Dataset = Literal["breastmnist", "pneumoniamnist", "kermany"]
Percent = Annotated[float, Field(gt=0, le=100)]


class StudyRequest(Section):
    """The grid of a study, and the settings that all its cells share."""

    datasets: tuple[Dataset, ...] = Field(min_length=1, description="Sets to study")
    arms: tuple[str, ...] = Field((), description="Ways that are tried; all of the study's where none is named")
    percents: tuple[Percent, ...] = Field((1, 5, 10), min_length=1, max_length=20, description="Labels used, percent")
    seeds: int = Field(
        3, ge=1, le=100, description="Repetitions, from `seed` on; each with other labels and another start"
    )
    data: Path | None = Field(None, description="Folder below which the sets' files lie; None downloads MedMNIST")
    weights: str | None = Field(None, description="ImageNet weights of SqueezeNet 1.1, a file or 'imagenet'")
    encoder: Literal["smallcnn", "resnet18", "squeezenet1_1"] = Field("smallcnn", description="Trained without labels")
    method: Literal["simclr", "moco"] = "simclr"
    size_px: Literal[28, 64, 128, 224] = Field(28, description="Side of the MedMNIST files")
    input_px: int = Field(28, ge=16, le=224, description="Input of the encoder that is trained")
    imagenet_px: int = Field(224, ge=32, le=224, description="Input of the encoder with ImageNet weights")
    epochs: int = Field(20, ge=1, le=1000, description="Of training without labels")
    training_epochs: int = Field(
        20,
        ge=1,
        le=1000,
        description="Of training on images: 128 of the training part count as one update of 32 labelled",
    )
    batch_size: int = Field(128, ge=4, le=4096)
    learning_rate: Positive = 1e-3
    precision: Literal["float32", "bf16"] = "float32"
    augmentation: Literal["strong", "weak"] = "strong"
    draws: int = Field(5, ge=1, le=100, description="Draws of the labels that a cell's figures are the mean of")
    folds: int = Field(5, ge=2, le=20, description="Folds that tune a head")

    @property
    def settings(self) -> dict[str, object]:
        """What a cell's result depends on beside the cell and the data."""
        shared = self.model_dump(
            mode="json", exclude={"datasets", "arms", "percents", "seed", "seeds", "data", "weights"}
        )
        return shared | {"weights": self.weights and Path(self.weights).name}
