"""Where the label store is: an option, the environment or the configuration; its password from the environment."""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from scanloop.errors import LabellingError

STORE, PASSWORD, PASSWORD_FILE = (
    "SCANLOOP_LABEL_STORE", "SCANLOOP_LABEL_PASSWORD", "SCANLOOP_LABEL_PASSWORD_FILE",
)  # fmt: skip
LARGEST_SECRET_BYTES = 4096


def store_address(given: str | None, configured: str | None) -> str:
    """Address of the label store, with its password: the option, else SCANLOOP_LABEL_STORE, else the configuration.

    Args:
        given: The option.
        configured: Value of the section `label`.

    Raises:
        LabellingError: None of them says it, an option holds a password, or the password's file cannot be read.
    """
    if given is not None and urlsplit(given).password is not None:
        raise LabellingError(f"others see the options of a command: leave the password out and set {PASSWORD}")
    address = given or named_store(configured)
    if not address:
        raise LabellingError(
            f"say where the label store is: --store, {STORE} or label.store in the configuration, for example "
            "sqlite:///labels.db or postgresql://scanloop@host/labels"
        )
    secret, parts = _secret(), urlsplit(address)
    if secret is None or parts.password is not None or not parts.hostname:
        return address
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user or 'scanloop'}:{quote(secret, safe='')}@{host}").geturl()


def named_store(configured: str | None) -> str | None:
    """Address that SCANLOOP_LABEL_STORE or the configuration names, without its password; None for neither."""
    return os.environ.get(STORE) or configured


def _secret() -> str | None:
    if (path := os.environ.get(PASSWORD_FILE)) is None:
        return os.environ.get(PASSWORD)
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LabellingError(f"{PASSWORD_FILE}: {path} cannot be read; it is to hold the password alone") from error
