"""What the page is told when it starts. Its one secret, the store's address, is never shown."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from scanloop.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Catalogs = Annotated[tuple[Path, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
"""One alone needs no list."""
Rate = Annotated[float, Field(gt=0, le=100_000)]


class PageSettings(BaseModel):
    """The page's settings; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    store: SecretStr = Field(description="The label store: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    catalogs: Catalogs = Field((), description="Catalogs of the published queues: images, examples")
    host: str = Field("127.0.0.1", description="Address to listen at")
    port: int = Field(8080, ge=0, le=65535)
    certificate: Path | None = Field(None, description="TLS certificate (PEM), where no proxy ends TLS")
    certificate_key: Path | None = Field(None, description="Its private key (PEM)")
    secure_cookies: bool = Field(True, description="False for plain http on this machine alone: host 127.0.0.1")
    origin: str | None = Field(None, description="What browsers call the page, as https://labels.hospital.org")
    login: Literal["password", "proxy"] = Field("password", description="Who says who somebody is")
    proxy_header: str = Field("X-Auth-Request-User", description="Header in which an OIDC proxy names the reader")
    trusted_proxies: tuple[Network, ...] = Field((), description="Addresses whose headers are believed; no others")
    idle_minutes: float = Field(30, gt=0, le=1440, description="A session that is not used ends after this long")
    session_hours: float = Field(12, gt=0, le=168, description="A session ends after this long in any case")
    logins_a_minute: Rate = Field(5, description="Log-ins that a name may try; an address may try four times as many")
    requests_a_minute: Rate = Field(1200, description="Requests of one session")
    most_body_bytes: int = Field(65_536, ge=1024, description="Longest body of a request")
    image_cache_mib: int = Field(64, ge=0, le=65_536, description="Images kept in memory")
    probabilities_before_answer: bool = Field(False, description="Whether readers may see the model's word beforehand")
    guidelines: Path | None = Field(None, description="Annotation guidelines in Markdown")
    features: Path | None = Field(None, description="Feature repository: what else is known of alike images")
    title: str = Field("scanloop", max_length=60, description="What the page is called")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.catalogs:
            raise ValueError("name the catalogs of the published queues: --catalog, or catalogs here")
        if self.login == "proxy" and not self.trusted_proxies:
            raise ValueError("login: proxy needs trusted_proxies, the addresses whose header is believed")
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate and certificate_key are given together")
        if not self.secure_cookies and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("secure_cookies: false is for this machine alone: host 127.0.0.1")
        if self.origin is not None and not self.origin.startswith(("https://", "http://")):
            raise ValueError("origin is the page's address without a path, as https://labels.hospital.org")
        return self


def load_settings(file: Path | None, given: dict[str, Any]) -> PageSettings:
    """Settings of a YAML file, with what was given on the command line or in the environment in place of the file's.

    Raises:
        ConfigError: The file or a value is wrong; the message lists every fault and repeats no value.
    """
    values: Any = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            mark = getattr(error, "problem_mark", None)  # the place alone: the text around it may be a secret
            place = "" if mark is None else f", line {mark.line + 1}"
            raise ConfigError(f"{file}: the page's settings cannot be read ({type(error).__name__}{place})") from error
        if not isinstance(values, dict) or "store" in values:
            raise ConfigError(
                f"{file}: settings are keys and values, and the store's address is not among them: --store or "
                "SCANLOOP_LABEL_STORE, its password in SCANLOOP_LABEL_PASSWORD or SCANLOOP_LABEL_PASSWORD_FILE"
            )
    try:
        return PageSettings.model_validate(values | {name: one for name, one in given.items() if one not in (None, ())})
    except ValidationError as error:
        raise ConfigError("the page's settings are wrong:\n  " + "\n  ".join(map(_fault, error.errors()))) from error


def _fault(one: ErrorDetails) -> str:
    place = ".".join(str(part) for part in one["loc"])
    message = "there is no such setting" if one["type"] == "extra_forbidden" else one["msg"]
    return f"{place}: {message}" if place else message.removeprefix("Value error, ")
