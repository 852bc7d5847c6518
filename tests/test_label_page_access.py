"""Who gets in: passwords, sessions, roles, requests of other sites, limits, and the word of a proxy."""

import re
import time
from hashlib import sha256

import pytest
from argon2 import PasswordHasher
from label_pages import PASSWORD, Site, SiteMaker
from sqlalchemy import select, update
from starlette.testclient import TestClient

from scanloop.errors import ConfigError, LabellingError, RoleError
from scanloop.labelling import passwords
from scanloop.labelling.app.application import ROUTERS, make_app
from scanloop.labelling.app.rates import MOST_KEYS, Buckets
from scanloop.labelling.app.settings import PageSettings, load_settings
from scanloop.labelling.passwords import check_password, set_password
from scanloop.labelling.readers import disable_reader, enable_reader
from scanloop.labelling.reading import NoTask, next_task
from scanloop.labelling.schema import Lease, PageSession, Password, Reader, Wave

PAGES = ("/", "/adjudicate", "/curate")
DATA = (
    "/api/progress", "/api/disputes", "/api/curator/overview", "/api/openapi.json", "/images/1",
    "/images/1/neighbours/0", "/images/examples/0/0",
)  # fmt: skip
ACTS = (
    "/api/tasks/next", "/api/tasks/1/answer", "/api/tasks/1/withdraw", "/api/tasks/1/release", "/api/tasks/1/reveal",
    "/api/tasks/1/neighbours", "/api/disputes/1/decide", "/api/curator/close", "/api/curator/budget",
    "/api/curator/labels.csv", "/logout",
)  # fmt: skip


def routes() -> set[str]:
    return {re.sub(r"\{\w+\}", "1", one.path) for router in ROUTERS for one in router.routes}  # type: ignore[attr-defined]


def try_password(browser: TestClient, name: str, password: str = PASSWORD, **headers: str) -> int:
    return int(browser.post("/login", data={"name": name, "password": password}, headers=headers).status_code)


def test_nothing_but_the_log_in_is_shown_without_a_session(site: Site) -> None:
    browser = site.browser()
    for page in PAGES:
        answer = browser.get(page, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    for path in DATA:
        assert browser.get(path).status_code == 401, path
    for path in ACTS:
        assert browser.post(path, json={}).status_code == 401, path
    open_to_all = {"/login", "/language"}
    known = {re.sub(r"/[01](?=/|$)", "/1", path) for path in (*PAGES, *DATA, *ACTS)}
    assert routes() - open_to_all == known, "a new route is named here, so that it is tried"


def test_a_reader_opens_neither_the_adjudicators_nor_the_curators_page_and_an_adjudicator_not_the_curators(
    site: Site,
) -> None:
    anna, ada, carl = site.enter("anna"), site.enter("ada"), site.enter("carl")
    for path in ("/adjudicate", "/api/disputes", "/curate", "/api/curator/overview", "/api/openapi.json"):
        assert anna.get(path).status_code == 403, path
    assert anna.post("/api/disputes/1/decide", {"answer": "normal"}).status_code == 403
    for act in ("close", "budget", "labels.csv"):
        assert anna.post(f"/api/curator/{act}", {"budget_eur": "2000"}).status_code == 403
        assert ada.post(f"/api/curator/{act}", {"budget_eur": "2000"}).status_code == 403
    assert [ada.get(path).status_code for path in ("/adjudicate", "/curate")] == [200, 403]
    assert [carl.get(path).status_code for path in ("/adjudicate", "/curate")] == [200, 200]
    with site.store.reading() as session:
        wave = session.scalars(select(Wave)).one()
        assert (wave.closed_at, wave.budget_cents) == (None, 100_000)


def test_logging_in_gives_a_new_session_whatever_the_browser_held_before(site: Site) -> None:
    browser = site.browser()
    browser.cookies.set("session", "a" * 43)  # what somebody else planted
    assert try_password(browser, "anna") == 303
    first = browser.cookies.get("session", domain="127.0.0.1")
    assert first not in (None, "a" * 43)
    assert try_password(browser, "anna") == 303
    second = browser.cookies.get("session", domain="127.0.0.1")
    assert second != first
    for planted in ("a" * 43, str(first)):
        other = site.browser()
        other.cookies.set("session", planted)
        assert other.get("/api/progress").status_code == 401
    with site.store.reading() as session:
        assert session.scalars(select(PageSession.digest)).all() == [sha256(str(second).encode()).hexdigest()]


def test_the_cookie_is_for_this_host_over_https_and_no_script(make_site: SiteMaker) -> None:
    site = make_site()
    said = site.browser().post("/login", data={"name": "anna", "password": PASSWORD}).headers["set-cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= {*said.split("; ")}
    assert "Secure" not in said
    settings = PageSettings(store="sqlite:///x", catalogs=(site.catalog,))  # type: ignore[arg-type]
    secure = TestClient(make_app(site.store, settings), base_url="https://labels.test", follow_redirects=False)
    answer = secure.post("/login", data={"name": "anna", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]


def test_sessions_end_when_idle_after_a_day_in_any_case_and_at_log_out(site: Site) -> None:
    anna = site.enter("anna")
    for _ in range(3):
        site.clock.move(minutes=29)
        assert anna.get("/api/progress").status_code == 200
    site.clock.move(minutes=31)
    assert anna.get("/api/progress").status_code == 401
    ben = site.enter("ben")
    for _ in range(25):
        site.clock.move(minutes=29)
        ben.get("/api/progress")
    assert ben.get("/api/progress").status_code == 401, "twelve hours"
    ada = site.enter("ada")
    ada.take()
    assert ada.browser.post("/logout", data={"csrf": ada.csrf}).status_code == 303
    assert ada.get("/api/progress").status_code == 401
    with site.store.reading() as session:
        assert session.scalars(select(Lease)).all() == [], "what she held goes back"


def test_a_reader_who_is_disabled_is_out_at_once_and_what_they_held_goes_back(site: Site) -> None:
    anna = site.enter("anna")
    task = anna.take()
    anna.get("/api/progress")
    disable_reader(site.store, "anna")
    disable_reader(site.store, "anna")
    assert anna.post("/api/tasks/next", {"beside": []}).status_code == 403, "though the page knew her a moment ago"
    assert anna.get(f"/images/{task['task']}").status_code == 403
    site.clock.move(seconds=1)
    assert anna.get("/api/progress").status_code == 401
    assert try_password(site.browser(), "anna") == 403
    with pytest.raises(RoleError, match="disabled"):
        next_task(site.store, "anna")
    with site.store.reading() as session:
        assert session.scalar(select(Wave.committed_cents)) == 0
    assert site.enter("ben").take()["task"] == task["task"]
    enable_reader(site.store, "anna")
    assert not isinstance(next_task(site.store, "anna"), NoTask)
    assert [len(site.events(kind)) for kind in ("disable", "enable")] == [1, 1]


def test_what_changes_something_needs_the_sessions_own_token(site: Site) -> None:
    anna, ben = site.enter("anna"), site.enter("ben")
    for token in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": ben.csrf}, {"X-CSRF-Token": "é"}):
        encoded = {name: value.encode() for name, value in token.items()}
        answer = anna.browser.post("/api/tasks/next", json={}, headers=encoded)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["kind"]) == (403, "csrf")
    assert anna.browser.post("/logout").status_code == 403
    assert anna.browser.post("/logout", data={"csrf": ben.csrf}).status_code == 403
    assert anna.get("/api/progress").status_code == 200
    assert anna.csrf not in site.store.engine.url.render_as_string()


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:8080.evil.test"},
    {"Origin": "https://evil.test", "Sec-Fetch-Site": "same-origin"},
])  # fmt: skip
def test_what_another_sites_page_sends_is_refused_even_with_the_token(site: Site, headers: dict[str, str]) -> None:
    anna = site.enter("anna")
    assert anna.post("/api/tasks/next", {"beside": []}, **headers).status_code == 403
    assert try_password(site.browser(), "anna", **headers) == 403
    assert site.browser().post("/language", data={"language": "fr", "back": "/"}, headers=headers).status_code == 403
    own = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
    assert anna.post("/api/tasks/next", {"beside": []}, **own).status_code == 200


def test_log_ins_are_limited_by_name_and_by_address_and_say_when_to_try_again(
    make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_NOBODYS", cheap.hash("nobody's"))
    monkeypatch.setattr("label_pages._hashed", lambda: cheap.hash(PASSWORD))
    site = make_site(settings={"logins_a_minute": 3})
    browser = site.browser()
    for _ in range(3):
        assert try_password(browser, "anna", "wrong password") == 403
    answer = browser.post("/login", data={"name": "anna", "password": PASSWORD})
    assert answer.status_code == 429, "also with the right password"
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert try_password(browser, "ben") == 303
    tried = [try_password(browser, f"nobody {number}") for number in range(12)]
    assert tried.count(429) >= 4, "an address tries twelve"


def test_a_session_that_asks_too_often_waits_and_others_do_not(make_site: SiteMaker) -> None:
    site = make_site(settings={"requests_a_minute": 60})
    anna, ben = site.enter("anna"), site.enter("ben")
    codes = [anna.get("/api/progress").status_code for _ in range(15)]
    assert (codes[0], codes[-1]) == (200, 429)
    assert anna.get("/api/progress").headers["retry-after"] == "1"
    assert ben.get("/api/progress").status_code == 200


def test_buckets_fill_again_and_their_number_is_bounded() -> None:
    now = [0.0]
    buckets = Buckets(60, 2, clock=lambda: now[0])
    assert [buckets.wait_seconds("a") for _ in range(3)] == [0, 0, 1]
    now[0] = 1.0
    assert [buckets.wait_seconds("a") for _ in range(2)] == [0, 1]
    for number in range(MOST_KEYS + 50):
        buckets.wait_seconds(str(number))
    assert len(buckets) == MOST_KEYS


def test_a_password_is_kept_as_argon2s_hash_and_an_unknown_name_takes_the_same_time(site: Site) -> None:
    set_password(site.store, "anna", "another good password")
    with site.store.reading() as session:
        hashed = session.scalars(select(Password.hash).order_by(Password.reader_id)).first()
    assert str(hashed).startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    check_password(site.store, "anna", "another good password")
    times = {}
    for name in ("anna", "nobody"):
        began = time.perf_counter()
        for _ in range(5):
            with pytest.raises(RoleError, match=r"^name or password is wrong$"):
                check_password(site.store, name, "wrong password")
        times[name] = time.perf_counter() - began
    assert 0.4 < times["nobody"] / times["anna"] < 2.5
    for bad in ("short", "x" * 1001):
        with pytest.raises(LabellingError, match="12 to 1000"):
            set_password(site.store, "anna", bad)


def test_log_ins_and_refused_ones_are_written_down_without_what_was_typed(site: Site) -> None:
    browser = site.browser()
    assert try_password(browser, "anna", "wrong password") == 403
    assert try_password(browser, "hunter2 as a name") == 403
    assert try_password(browser, "anna") == 303
    refused, (logged_in,) = site.events("login refused"), site.events("login")
    assert [one.reader_id is None for one in refused] == [False, True]
    assert logged_in.detail == {"how": "password", "address": "testclient"}
    assert "hunter2" not in str([one.detail for one in refused])


def behind_proxy(make_site: SiteMaker) -> Site:
    return make_site(settings={"login": "proxy", "trusted_proxies": ["10.0.0.0/8"], "proxy_header": "X-Auth-User"})


def from_address(site: Site, address: str, user: str | None = "anna") -> TestClient:
    headers = {} if user is None else {"X-Auth-User": user}
    options = {"client": (address, 1), "headers": headers, "base_url": "http://127.0.0.1:8080"}
    return TestClient(site.app, follow_redirects=False, **options)  # type: ignore[arg-type]


def test_a_proxys_header_counts_from_its_configured_address_alone(make_site: SiteMaker) -> None:
    site = behind_proxy(make_site)
    stranger = from_address(site, "192.168.1.5")
    assert stranger.get("/").status_code == 403
    assert stranger.get("/", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 403
    trusted = from_address(site, "10.1.2.3")
    assert trusted.get("/").status_code == 303
    assert trusted.get("/").status_code == 200
    assert trusted.get("/api/progress").status_code == 200
    assert trusted.get("/api/progress", headers={"X-Auth-User": "carl"}).status_code == 401, "another's session"
    stolen = from_address(site, "192.168.1.5")
    stolen.cookies = trusted.cookies
    assert stolen.get("/api/progress").status_code == 403
    assert from_address(site, "10.1.2.3", "mallory").get("/").status_code == 403
    assert from_address(site, "10.1.2.3", None).get("/").status_code == 403
    assert try_password(trusted, "anna") == 403, "passwords are off"
    assert site.events("login")[0].detail["how"] == "proxy"


def test_the_address_of_a_log_in_is_what_the_trusted_proxy_saw_and_not_what_a_browser_claims(
    make_site: SiteMaker,
) -> None:
    site = make_site(settings={"trusted_proxies": ["10.0.0.0/8"]})
    said = {"X-Forwarded-For": "1.1.1.1, 172.16.0.9, 10.0.0.2"}
    for peer in ("10.0.0.1", "192.168.0.7"):
        assert try_password(from_address(site, peer), "anna", **said) == 303
    assert [one.detail["address"] for one in site.events("login")] == ["172.16.0.9", "192.168.0.7"]


@pytest.mark.parametrize(("given", "fault"), [
    ({"login": "proxy"}, "trusted_proxies"),
    ({"host": "0.0.0.0", "secure_cookies": False}, "this machine alone"),
    ({"certificate": "a.pem"}, "together"),
    ({"catalogs": ()}, "catalogs"),
    ({"nonsense": 1}, "nonsense"),
    ({"trusted_proxies": ["10.0.0.0/33"], "store": "postgresql://u:hunter2@h/n"}, "trusted_proxies"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused_and_no_value_is_repeated(given: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as refused:
        load_settings(None, {"store": "postgresql://u:hunter2@h/n", "catalogs": ("c",)} | given)
    assert "hunter2" not in str(refused.value)


def test_disabled_at_is_what_keeps_a_reader_out_even_with_a_session_row(site: Site) -> None:
    anna = site.enter("anna")
    with site.store.writing() as (session, at):
        session.execute(update(Reader).where(Reader.name == "anna").values(disabled_at=at))
    site.clock.move(seconds=1)
    assert anna.get("/api/progress").status_code == 401
