"""The description of the interface: valid, true of the server that gives it, and readable without a network."""

import copy
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from served import MAX_BATCH, TOKEN

from serving.openapi import describe
from serving.predictor import Limits

LIMITS = Limits(24, 4 << 20, 30, 30)


@pytest.fixture(scope="module")
def description(client: httpx.Client) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def resolved(description: dict[str, Any], node: Any) -> Any:
    """The node with every reference replaced by what it points to."""
    if isinstance(node, list):
        return [resolved(description, one) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found: Any = description
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return resolved(description, found)
    return {key: resolved(description, one) for key, one in node.items()}


def check(description: dict[str, Any], schema: Any, value: Any) -> None:
    Draft202012Validator(resolved(description, schema)).validate(value)


def test_the_description_is_valid_openapi_and_a_broken_one_is_not(description: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(copy.deepcopy(description)).validate()
    broken = copy.deepcopy(description)
    broken["paths"]["/metrics"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(broken).validate()
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_it_names_the_model_its_limits_and_whether_a_token_is_asked_for(description: dict[str, Any]) -> None:
    assert description["components"]["schemas"]["V1Request"]["properties"]["instances"]["maxItems"] == MAX_BATCH
    assert "4 MiB" in description["info"]["description"]
    assert description["security"] == [{"bearer": []}]
    other = describe("chest", LIMITS, secured=False)
    assert "/v2/models/chest/infer" in other["paths"]
    assert "security" not in other
    schemathesis.openapi.from_dict(other).validate()


def test_every_example_is_answered_as_described(client: httpx.Client, description: dict[str, Any]) -> None:
    answered = 0
    for method, path, operation in operations(description):
        if method != "post":
            continue
        content = resolved(description, operation["requestBody"])["content"]["application/json"]
        for name, example in content["examples"].items():
            check(description, content["schema"], example["value"])
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200, (path, name, answer.text)
            check(description, operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json())
            assert ("heat_map" in answer.text) == ("explain" in path and name != "chosen"), (path, name)
            answered += 1
    assert answered == 8


def test_what_is_read_answers_as_described_and_is_open_only_where_it_says_so(
    client: httpx.Client, description: dict[str, Any]
) -> None:
    stranger = httpx.Client(base_url=client.base_url, trust_env=False)
    for method, path, operation in operations(description):
        if method != "get":
            continue
        answer = client.get(path)
        assert answer.status_code == 200, path
        ((media_type, content),) = operation["responses"]["200"]["content"].items()
        assert answer.headers["content-type"].startswith(media_type), path
        if media_type == "application/json":
            check(description, content["schema"], answer.json())
        is_open = operation.get("security") == []
        assert stranger.get(path).status_code == (200 if is_open else 401), path
    stranger.close()


def test_requests_made_of_the_description_get_described_answers_and_never_a_5xx(
    client: httpx.Client, description: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{str(client.base_url).rstrip('/')}/openapi.json"
    schema = schemathesis.openapi.from_url(url, headers=headers)
    error = description["components"]["schemas"]["Error"]
    seen: set[str] = set()

    def call(case: schemathesis.Case) -> None:
        answer = case.call(headers=headers)
        seen.add(f"{case.method} {case.path}")
        assert answer.status_code < 500, (case.path, case.body, answer.text)
        described = description["paths"][case.path][case.method.lower()]["responses"]
        assert str(answer.status_code) in described, (case.path, answer.status_code, answer.text)
        if answer.status_code != 200:
            check(description, error, json.loads(answer.text))
            assert "Traceback" not in answer.text

    for result in schema.get_all_operations():
        settings(
            max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate], database=None,
            suppress_health_check=list(HealthCheck),
        )(given(case=result.ok().as_strategy())(call))()  # fmt: skip
    described = {f"{method.upper()} {path}" for method, path, _ in operations(description)}
    assert described - seen == {"GET /openapi.json"}  # schemathesis leaves out where the description comes from


def test_the_page_shows_every_operation_and_loads_nothing(client: httpx.Client, description: dict[str, Any]) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[tuple[str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags.append((tag, dict(attributes)))

    reader = Reader()
    reader.feed(answer.text)
    assert [tag for tag, _ in reader.tags if tag in {"script", "link", "img", "iframe", "form"}] == []
    assert [attributes["href"] for tag, attributes in reader.tags if tag == "a"] == ["openapi.json"]
    for _, path, operation in operations(description):
        assert f'id="{operation["operationId"]}"' in answer.text
        assert path in answer.text
    assert "instances[].image.b64" in answer.text
    assert len(re.findall("curl", answer.text)) == 8 + sum(method == "get" for method, *_ in operations(description))


def test_a_name_reaches_the_page_as_text() -> None:
    described = describe("a", LIMITS, secured=True)
    described["info"]["title"] = "<script>alert(1)</script>"
    from serving.openapi import pages

    assert b"<script>" not in pages(described)["/docs"].body
