"""The champion as KServe sees it: its name, whether it is ready, its tensors. Predictions do not pass through it."""

from typing import Any

from kserve import Model

from serving.champion import Champion
from serving.tensors import metadata
from serving.v2 import INPUTS


class Classifier(Model):  # type: ignore[misc]  # kserve ships no usable types
    """What KServe's metadata and readiness endpoints ask."""

    def __init__(self, champion: Champion) -> None:
        super().__init__(champion.name)
        self._champion = champion
        self.ready = True  # kserve refuses to start with a model that is not; `healthy` is what is asked later

    async def healthy(self) -> bool:
        """Whether the champion is loaded, warm and not about to end."""
        return self._champion.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of the input tensor."""
        return INPUTS

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of the output tensors; the number of classes is known once a model is loaded."""
        return metadata(len(self._champion.loaded().bundle.classes))
