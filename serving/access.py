"""Who may ask: a bearer token, and none needed only where nobody else can reach the port."""

import ipaddress
import os
import secrets
from pathlib import Path

from scanloop.errors import ConfigError

TOKEN_VARIABLE = "SCANLOOP_TOKEN"  # noqa: S105 - the variable's name, not a token

REMEDY = f"give a token with --token-file or {TOKEN_VARIABLE}, or demand client certificates with --tls-clients"

OPEN_PATHS = ("/", "/v2/health/live", "/v2/health/ready")
"""Probed by orchestrators without a token. A model's own readiness is open as well: see `is_open`."""


def read_token(host: str, token_file: Path | None, *, open_to_all: bool = False, certified: bool = False) -> str | None:
    """The token that requests must carry, or None where none is needed.

    It comes from the file, else from the environment variable SCANLOOP_TOKEN.

    Args:
        host: Address that is bound to.
        token_file: File with the token.
        open_to_all: Whether no token is asked for on purpose; on loopback alone.
        certified: Whether clients must bring a certificate, and need no token then.

    Raises:
        ConfigError: The file is missing or empty; or there is no token, and nothing else keeps strangers out.
    """
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {token_file}: cannot be read ({error})") from error
        if not token:
            raise ConfigError(f"--token-file {token_file}: the file is empty")
        return token
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    if certified:
        return None
    if open_to_all and is_loopback(host):
        return None
    if open_to_all:
        raise ConfigError(f"--open is for loopback; --host {host} is reachable from other machines: {REMEDY}")
    raise ConfigError(f"who may ask? {REMEDY}; --open, on loopback alone, asks nobody")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_open(method: str, path: str) -> bool:
    """Whether a request is answered without a token: health and readiness are, all else is not."""
    parts = path.split("/")
    is_model_readiness = (parts[:3] == ["", "v1", "models"] and len(parts) == 4) or (
        parts[:3] == ["", "v2", "models"] and len(parts) == 5 and parts[4] == "ready"
    )
    return method in {"GET", "HEAD"} and (path in OPEN_PATHS or is_model_readiness)


def carries(token: str, authorization: str) -> bool:
    """Whether an Authorization header carries the token; takes the same time wherever they differ."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token.encode())
