"""What strangers send: every field of the API with whatever schemathesis and we can think of, and what leaks."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from label_pages import LABELLED, PATIENT, Person, Site, SiteMaker
from label_stores import slice_ids

from scanloop.labelling.app.shielding import POLICY
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.readers import add_reader

HOSTILE = (
    "' OR 1=1 --", '"; DROP TABLE readings; --', "<script>alert(1)</script>", "../../etc/passwd", "%2e%2e%2f",
    "\x00", "\ud800", "{{7*7}}", "${jndi:ldap://x}", "a" * 5000, "\r\nSet-Cookie: a=b", "=1+1", "😀", "\u202e",
)  # fmt: skip
FORBIDDEN = re.compile("|".join([PATIENT, *LABELLED, r"slice-\d{5}", r"shard-\d{6}", "phash", "/tmp/", "/shards/"]))


@pytest.fixture
def carl(make_site: SiteMaker) -> Person:
    limits = {"logins_a_minute": 90_000, "requests_a_minute": 90_000}
    return make_site(30, policy=DoubleReading("all"), settings=limits).enter("carl")


def test_no_request_that_the_description_allows_finds_a_fault_or_a_leak(carl: Person) -> None:
    number = carl.take()["task"]
    headers = {"Cookie": f"session={carl.browser.cookies.get('session')}", "X-CSRF-Token": carl.csrf}
    described = schemathesis.openapi.from_asgi("/api/openapi.json", carl.browser.app, headers=headers)
    codes: dict[str, Counter[int]] = defaultdict(Counter)

    def call(case: schemathesis.Case) -> None:
        if "task" in case.path_parameters and case.path_parameters["task"] % 2:
            case.path_parameters["task"] = number  # else hardly any number would be a task's
        answer = case.call(headers=headers)
        codes[f"{case.method} {case.path}"][answer.status_code] += 1
        assert answer.status_code < 500, (case.method, case.path, case.body, answer.text)
        assert answer.headers["content-security-policy"] == [POLICY]
        told = "" if case.path.startswith("/images/") or case.path.endswith(".csv") else answer.text
        assert not FORBIDDEN.search(told), (case.path, told)

    found = [result.ok() for result in described.get_all_operations()]
    for operation in sorted(found, key=lambda one: one.path.endswith("/close")):  # closing the wave comes last
        settings(
            max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate], database=None,
            suppress_health_check=list(HealthCheck),
        )(given(case=operation.as_strategy())(call))()  # fmt: skip
    assert len(codes) >= 16, sorted(codes)
    assert sum(200 in one for one in codes.values()) >= 8, "some get through"


def test_hostile_text_in_every_field_is_refused_or_stays_text(carl: Person) -> None:
    site_tables = carl.get("/api/curator/overview").json()["wave"]["tasks"]
    task = carl.take()
    for text in HOSTILE:
        raw = json.dumps({"answer": text, "token": text}).encode("utf-8", "surrogatepass")
        headers = {"X-CSRF-Token": carl.csrf, "Content-Type": "application/json"}
        posts = {
            f"/api/tasks/{task['task']}/answer": raw,
            "/api/tasks/next": json.dumps({"beside": [text]}).encode(),
            "/api/disputes/1/decide": json.dumps({"answer": "normal", "comment": text}).encode(),
            "/api/curator/budget": json.dumps({"budget_eur": text}).encode(),
        }
        for path, body in posts.items():
            code = carl.browser.post(path, content=body, headers=headers).status_code
            assert 400 <= code < 500, (path, text)
        quoted = text.encode("utf-8", "replace")
        answer = carl.browser.post("/login", data={"name": quoted, "password": quoted})
        assert 400 <= answer.status_code < 500, text
        assert "<script>alert" not in answer.text
        answer = carl.browser.post("/language", data={"language": quoted, "back": quoted})
        assert answer.status_code in (303, 422)
        assert answer.headers.get("location", "/") == "/"
    assert carl.get("/api/curator/overview").json()["wave"]["tasks"] == site_tables


@pytest.mark.parametrize("path", [
    "/images/../../etc/passwd", "/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/static/../application.py",
    "/static/%2e%2e/application.py", "/static/..%2fapplication.py", "/static//etc/passwd", "/images/1%00", "/images/-1",
    "/images/1e3", "/images/99999999999999999999", "/images/examples/-1/0", "/images/examples/0/99999999999999999999",
    "/images/1/neighbours/-1", "/api/openapi.json/..", "/docs", "/openapi.json", "/redoc", "/static/",
])  # fmt: skip
def test_a_path_that_leads_elsewhere_leads_nowhere(carl: Person, path: str) -> None:
    answer = carl.browser.get(path)
    assert 400 <= answer.status_code < 500, path
    assert "root:" not in answer.text
    assert "make_app" not in answer.text


def test_a_comment_with_html_stays_text_and_a_name_with_html_is_escaped(make_site: SiteMaker) -> None:
    site = make_site()
    name = '"><script>alert(1)</script>'
    add_reader(site.store, name, "curator")
    page = site.enter(name).get("/curate").text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_no_page_answer_or_address_names_a_patient_a_slice_or_a_file(make_site: SiteMaker) -> None:
    site = make_site(policy=DoubleReading("all"))
    anna, ben, carl = site.enter("anna"), site.enter("ben"), site.enter("carl")
    number = anna.read("normal")
    assert ben.read("pneumonia") == number
    task = anna.take()["task"]
    answers = [
        anna.get("/"), anna.get("/api/progress"), anna.post("/api/tasks/next", {"beside": [task]}),
        anna.post(f"/api/tasks/{task}/neighbours"), anna.post(f"/api/tasks/{number}/reveal"),
        carl.get("/adjudicate"), carl.get("/curate"), carl.get("/api/disputes"), carl.get("/api/curator/overview"),
        anna.get("/images/99"), anna.post(f"/api/tasks/{number}/withdraw"), carl.get(f"/images/{number}"),
        carl.get("/api/openapi.json"),
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code < 500
        told = answer.text if "image" not in answer.headers["content-type"] else ""
        assert not FORBIDDEN.search(told + str(answer.headers)), answer.url
    assert FORBIDDEN.search(slice_ids(1)[0]), "the pattern finds them where they are"


def test_every_answer_carries_the_headers_that_shut_the_page_in(site: Site) -> None:
    anna = site.enter("anna")
    browser = site.browser()
    answers = [
        browser.get("/login"), browser.get("/static/reader.js"), browser.get("/nowhere"), browser.get("/healthz"),
        browser.get("/readyz"), browser.get("/api/progress"), anna.get("/"),
        browser.post("/login", content=b"x" * 70_000), browser.post("/login", headers={"Content-Length": "9" * 30}),
    ]  # fmt: skip
    assert [one.status_code for one in answers] == [200, 200, 404, 200, 200, 401, 200, 413, 413]
    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    known = browser.get("/static/reader.js", headers={"If-None-Match": answers[1].headers["etag"]})
    assert (known.status_code, known.headers["cache-control"]) == (304, "no-cache"), "asked for again, sent once"
    assert [one.headers["cache-control"] for one in answers[:3]] == ["no-store", "no-cache", "no-store"]


def test_a_body_without_a_length_is_bounded_as_well(site: Site) -> None:
    answer = site.browser().post("/login", content=iter([b"x" * 10_000] * 8))
    assert answer.status_code == 413


def test_a_fault_of_ours_is_a_plain_500_with_its_cause_in_the_log_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("secret detail")

    anna = site.enter("anna")
    monkeypatch.setattr("scanloop.labelling.app.reader_api.next_task", fail)
    answer = anna.post("/api/tasks/next", {"beside": []})
    assert (answer.status_code, answer.json()["kind"]) == (500, "fault")
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert answer.headers["content-security-policy"] == POLICY


def test_pages_hold_neither_inline_scripts_nor_styles_nor_addresses_of_others() -> None:
    app = Path(__file__).parents[1] / "src" / "scanloop" / "labelling" / "app"
    pages = sorted((app / "templates").glob("*.html"))
    assert len(pages) >= 6
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<style|\bstyle=|\son\w+=|https?://|//cdn|\|\s*safe", text), page
        for script in re.findall(r"<script[^>]*>", text):
            assert re.fullmatch(r'<script type="module" src="/static/\w+\.js">', script), page
    for script in sorted((app / "static").glob("*.js")):
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://", text), script
