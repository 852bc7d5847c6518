"""Any image encoder of timm, where timm is installed: `timm:NAME`."""

from typing import Any, TypeAlias

from torch import Tensor, nn

from scanloop.embedding.vision import torchvision
from scanloop.errors import ConfigError, WeightsError

PREFIX = "timm:"

Colours: TypeAlias = tuple[float, float, float]


class Trunk(nn.Module):
    """A timm model without its classifier, as one block.

    Attributes:
        net: The model.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """The model's own pooled features of images (n, 3, s, s), as maps (n, dimension, 1, 1)."""
        features: Any = self.net.forward_features(images)  # type: ignore[operator]
        pooled: Tensor = self.net.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return pooled[:, :, None, None]


def timm_blocks(name: str) -> tuple[nn.ModuleList, int]:
    """A timm model with random weights as a chain of one block, which fine-tuning trains as a whole; its dimension.

    Args:
        name: "timm:" and the name of a model, for example "timm:convnext_tiny".

    Raises:
        ConfigError: timm is not installed, or knows no such model.
    """
    net = _model(name, pretrained=False)
    dimension = getattr(net, "head_hidden_size", None) or net.num_features
    return nn.ModuleList([Trunk(net)]), int(dimension)


def timm_state(name: str) -> dict[str, Tensor]:
    """Pretrained weights of a timm model, downloaded by timm from where it keeps them.

    Raises:
        WeightsError: They could not be had.
    """
    try:
        state: dict[str, Tensor] = _model(name, pretrained=True).state_dict()
    except ConfigError:
        raise
    except Exception as error:
        raise WeightsError(
            f"timm could not download the weights of {name} ({str(error).splitlines()[0]}); fetch their state dict on "
            "a machine with internet and set pretrain.weights to its path"
        ) from error
    return state


def timm_colours(name: str) -> tuple[Colours, Colours]:
    """Mean and standard deviation per channel that a timm model was trained with, in units of 0..255."""
    facts = _model(name, pretrained=False).pretrained_cfg
    (red, green, blue), spread = facts["mean"], facts["std"]
    return (255 * red, 255 * green, 255 * blue), (255 * spread[0], 255 * spread[1], 255 * spread[2])


def _model(name: str, pretrained: bool) -> Any:
    torchvision()  # timm imports it, and that may need help
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"pretrain.encoder {name} needs timm: pip install timm, or take resnet18") from error
    plain = name.removeprefix(PREFIX)
    if not timm.is_model(plain):
        raise ConfigError(
            f"pretrain.encoder {name}: timm {timm.__version__} knows no such model; see timm.list_models()"
        )
    return timm.create_model(plain, pretrained=pretrained, num_classes=0)
