"""The description of the HTTP interface, and a page made of it that needs neither scripts nor a network."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.predictor import Limits

SOURCE = Path(__file__).with_name("openapi.yaml")

STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h2 { margin-top: 2.5rem; font-size: 1.1rem } h2 b { background: #1f5fa8; color: #fff; padding: .1rem .5rem }
code, pre { font: 13px/1.4 ui-monospace, monospace } pre { background: #f3f5f8; padding: .8rem; overflow: auto }
td, th { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; border-bottom: 1px solid #e3e7ee }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SHOWN_CHARACTERS = 60
"""Of a text in an example on the page: base64 says nothing to a reader. `/openapi.json` has all of it."""


@dataclass(frozen=True)
class Page:
    """What a path answers."""

    media_type: str
    body: bytes


def describe(name: str, limits: Limits, *, secured: bool) -> dict[str, Any]:
    """The description, OpenAPI 3.1.

    Args:
        name: Of the model.
        limits: Of a request.
        secured: Whether a token is asked for.
    """
    text = SOURCE.read_text(encoding="utf-8").replace("NAME", name).replace("MOST_IMAGES", str(limits.images))
    description: dict[str, Any] = yaml.safe_load(text)
    if secured:
        description["security"] = [{"bearer": []}]
    else:
        del description["components"]["securitySchemes"]
    described = f"At most {limits.images} images and {limits.body_bytes / 2**20:g} MiB a request."
    description["info"]["description"] += f" {described}"
    return description


def pages(description: Mapping[str, Any]) -> dict[str, Page]:
    """What `/openapi.json` and `/docs` answer."""
    return {
        "/openapi.json": Page("application/json", json.dumps(description, ensure_ascii=False).encode()),
        "/docs": Page("text/html; charset=utf-8", "".join(_page(description)).encode()),
    }


def _page(description: Mapping[str, Any]) -> Iterator[str]:
    info, secured = description["info"], "security" in description
    title = html.escape(info["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    yield f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
    yield '<p>The same for programs: <a href="openapi.json">openapi.json</a>. '
    yield "Requests carry <code>Authorization: Bearer TOKEN</code>, unless they say 'open'.</p>" if secured else "</p>"
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield from _operation(description, method, path, operation)
    yield "</html>\n"


def _operation(description: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    is_open = operation.get("security") == [] or "security" not in description
    mark = " <small>open</small>" if is_open else ""
    yield f'<h2 id="{operation["operationId"]}"><b>{method.upper()}</b> <code>{html.escape(path)}</code>{mark}</h2>'
    yield f"<p>{html.escape(operation['summary'])}. {html.escape(operation.get('description', ''))}</p>"
    header = "" if is_open else " -H 'Authorization: Bearer TOKEN'"
    if "requestBody" not in operation:
        yield f"<pre>{html.escape(f'curl{header} http://HOST:PORT{path}')}</pre>"
    else:
        content = _found(description, operation["requestBody"])["content"]["application/json"]
        yield "<h3>Fields</h3><table>"
        yield from _fields(description, content["schema"], "")
        yield "</table>"
        for example in content["examples"].values():
            body = json.dumps(_shortened(example["value"]), ensure_ascii=False)
            call = f"curl{header} -H 'Content-Type: application/json' \\\n  http://HOST:PORT{path} \\\n  -d '{body}'"
            yield f"<p>{html.escape(example['summary'])}:</p><pre>{html.escape(call)}</pre>"
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        yield "<h3>Answer</h3><table>"
        yield from _fields(description, answer, "")
        yield "</table>"
    yield "<h3>Status</h3><table>"
    for code, response in operation["responses"].items():
        yield f"<tr><th>{code}<td>{html.escape(_found(description, response)['description'])}"
    yield "</table>"


def _fields(description: Mapping[str, Any], given: Mapping[str, Any], place: str) -> Iterator[str]:
    """Rows of a schema's fields, nested ones under dotted names."""
    schema = _found(description, given)
    if place:
        kind = schema.get("type", "")
        kinds = " or ".join(kind) if isinstance(kind, list) else kind
        values = ", ".join(json.dumps(one) for one in schema.get("enum", []))
        about = " ".join(part for part in (schema.get("description", ""), values and f"One of {values}.") if part)
        yield f"<tr><td><code>{html.escape(place)}</code><td>{html.escape(kinds)}<td>{html.escape(about)}"
    if "items" in schema:
        inner = _found(description, schema["items"])
        if "properties" in inner:
            yield from _fields_of(description, inner, f"{place}[].")
    yield from _fields_of(description, schema, f"{place}." if place else "")


def _fields_of(description: Mapping[str, Any], schema: Mapping[str, Any], before: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield from _fields(description, inner, f"{before}{name}")


def _found(description: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference points to; anything else is given back."""
    if "$ref" not in given:
        return given
    found: Any = description
    for part in given["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found  # type: ignore[no-any-return]


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    is_long = isinstance(value, str) and len(value) > SHOWN_CHARACTERS
    return f"{value[: SHOWN_CHARACTERS // 2]}..." if is_long else value
