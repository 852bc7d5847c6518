"""What a request asks for, and what it gets, whichever protocol it came by."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt

from scanloop.bundle.engines.engine import Floats
from scanloop.types import Image
from serving.rejection import RequestError, invalid

MOST_NEIGHBOURS = 20
"""Most exemplars an image may be answered with."""


@dataclass(frozen=True)
class Sent:
    """One image as it was sent.

    Attributes:
        field: Where it stands in the request, for messages.
        content: Base64 text or the bytes of an image file, pixels uint8 (h, w) or (h, w, 3), or the network's own
            input, float32 (3, s, s), normalised.
        frame: Frame of a DICOM object with several, from 0.
    """

    field: str
    content: str | bytes | Image | Floats
    frame: int | None = None

    def file(self) -> bytes:
        """The file's bytes.

        Raises:
            RequestError: The text is not base64.
        """
        if isinstance(self.content, bytes):
            return self.content
        assert isinstance(self.content, str)
        try:
            return base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError) as error:
            problem = "a data URL" if self.content.startswith("data:") else str(error)
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "bad_base64", f"{self.field}: not plain base64 without line breaks ({problem})"
            ) from error

    @property
    def is_input(self) -> bool:
        """Whether it is the network's own input."""
        return isinstance(self.content, np.ndarray) and self.content.dtype == np.float32


@dataclass(frozen=True)
class Asked:
    """The images of one request, and what is wanted of each besides its class.

    Attributes:
        images: At least one.
        neighbours: How many of the nearest labelled exemplars come back.
        explain: Whether a heat map comes back.
        tolerant: Whether an image that cannot be read is abstained from, instead of the whole request refused.
    """

    images: list[Sent]
    neighbours: int = 0
    explain: bool = False
    tolerant: bool = False


@dataclass(frozen=True)
class Parameters:
    """A request's parameters, checked."""

    neighbours: int = 0
    explain: bool = False
    tolerant: bool = False


def read_parameters(given: object, place: str = "parameters") -> Parameters:
    """Parameters of a request; those that this server does not know are left to others.

    Raises:
        RequestError: One of them is wrong.
    """
    if given is None:
        return Parameters()
    if not isinstance(given, Mapping):
        raise invalid(place, 'must be an object, for example {"neighbours": 3}')
    neighbours, explain = given.get("neighbours", 0), given.get("explain", False)
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or not 0 <= neighbours <= MOST_NEIGHBOURS:
        raise invalid(f"{place}.neighbours", f"must be a whole number in 0..{MOST_NEIGHBOURS}")
    if not isinstance(explain, bool):
        raise invalid(f"{place}.explain", "must be true or false")
    if (bad := given.get("bad_images", "refuse")) not in ("refuse", "abstain"):
        raise invalid(f"{place}.bad_images", f"must be 'refuse' or 'abstain', not {str(bad)[:20]!r}")
    return Parameters(neighbours, explain, bad == "abstain")


def check_count(place: str, count: int, most: int) -> None:
    """Return if a request may hold so many images.

    Raises:
        RequestError: It may not.
    """
    if count > most:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_images", f"{place}: {count} images; at most {most} a request"
        )


@dataclass(frozen=True)
class Row:
    """What one image gets.

    Attributes:
        probabilities: (classes,) float64, calibrated, sum 1.
        label: Name of the class at the operating point.
        confidence: Its calibrated probability, 0..1.
        members: (classes,) whether each class is in the image's conformal set.
        abstained: Why no label should be acted on; None where it may be.
        strangeness: Cosine distance to the nearest familiar images, 0..2; None where unknown.
        neighbours: Nearest labelled exemplars, nearest first; None where nobody asked.
        heat_map: PNG of where the label comes from; None where nobody asked.
        fault: Why the image could not be read; then there is no label, and all probabilities are 0.
    """

    probabilities: npt.NDArray[np.float64]
    label: str
    confidence: float
    members: npt.NDArray[np.bool_]
    abstained: str | None = None
    strangeness: float | None = None
    neighbours: list[dict[str, Any]] | None = None
    heat_map: bytes | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the model says of the images of one request.

    Attributes:
        classes: Names of the columns.
        digest: Digest of the bundle.
        data_digest: Digest of what it learnt from.
        operating_point: Name of the rule that gave the labels.
        rows: One an image, in the request's order.
    """

    classes: tuple[str, ...]
    digest: str
    data_digest: str
    operating_point: str
    rows: list[Row]
