"""A model server as KServe's documentation writes one: `kserve.Model`, `predict` as a plain function, torch in float32.

.venv/bin/python benchmarks/plain_server.py --http_port 8081

What `bench_serve.py` measures ours against. The network has the weights of the bundle there (`resnet_bundle.py`).
Bound to loopback; all else is KServe's and torch's default.
"""

import argparse
import base64
import io
from typing import Any

import kserve.protocol.rest.server as rest
import numpy as np
import PIL.Image
import torch
import uvicorn
from kserve import Model, ModelServer, model_server
from resnet_bundle import CLASSES, new_network

NAME = "plain"
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Plain(Model):  # type: ignore[misc]  # kserve ships no usable types
    """ResNet-18 from JPEGs, one at a time."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.network = new_network()
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002  kserve calls it so
        """Probabilities of the images of a V1 request."""
        predictions = []
        for instance in payload["instances"]:
            picture = PIL.Image.open(io.BytesIO(base64.b64decode(instance["image"]["b64"])))
            with torch.inference_mode():
                logits = self.network(transformed(picture)[None])[0]
                probabilities = torch.softmax(logits, dim=0).tolist()
            label = CLASSES[int(np.argmax(probabilities))]
            predictions.append({"label": label, "probabilities": dict(zip(CLASSES, probabilities, strict=True))})
        return {"predictions": predictions}


def transformed(picture: PIL.Image.Image) -> torch.Tensor:
    """What torchvision's Resize(256), CenterCrop(224), ToTensor and Normalize make of a picture."""
    picture = picture.convert("RGB")
    scale = 256 / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    picture = picture.resize((width, height), PIL.Image.Resampling.BILINEAR)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = np.array(picture.crop((left, top, left + 224, top + 224)))
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - MEAN) / STD


class _Loopback(uvicorn.Config):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"host": "127.0.0.1"})


def main() -> None:
    """Serve until the process is ended."""
    arguments, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
    rest.uvicorn.Config = _Loopback  # kserve binds every address of the machine
    ModelServer(http_port=arguments.http_port, enable_grpc=False).start([Plain()])


if __name__ == "__main__":
    main()
