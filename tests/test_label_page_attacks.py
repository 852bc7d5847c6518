"""What somebody with ill will tried on the page, and what a hospital does that looks like it."""

import io

import pandas as pd
import pytest
from argon2 import PasswordHasher
from label_pages import PASSWORD, Site, SiteMaker
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from scanloop.labelling import passwords
from scanloop.labelling.readers import add_reader
from scanloop.labelling.schema import PageSession, Password, Reader, Wave


def logged_in(browser: TestClient, name: str) -> int:
    return int(browser.post("/login", data={"name": name, "password": PASSWORD}).status_code)


def test_a_hospital_behind_one_address_logs_in_and_only_log_ins_that_fail_count_against_it(
    make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr("label_pages._hashed", lambda: cheap.hash(PASSWORD))
    monkeypatch.setattr(passwords, "_NOBODYS", cheap.hash("nobody's"))
    site = make_site(settings={"logins_a_minute": 1})
    browser, staff = site.browser(), [f"reader {number}" for number in range(8)]
    for name in staff:
        add_reader(site.store, name)
        with site.store.writing() as (session, at):
            who = session.scalar(select(Reader.id).where(Reader.name == name))
            session.add(Password(reader_id=who, hash=cheap.hash(PASSWORD), set_at=at))
    assert [logged_in(browser, name) for name in staff] == [303] * 8
    assert [logged_in(browser, f"nobody {number}") for number in range(5)] == [403] * 4 + [429]
    assert logged_in(browser, "anna") == 429, "who guesses does not fill the bucket again by being right once"


def test_an_address_that_a_browser_claims_in_a_line_of_its_own_is_not_believed(make_site: SiteMaker) -> None:
    site = make_site(settings={"trusted_proxies": ["10.0.0.0/8"]})
    browser = TestClient(site.app, client=("10.0.0.1", 1), base_url="http://127.0.0.1:8080")
    lines = [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "172.16.0.9")]  # the second is the proxy's
    browser.post("/login", data={"name": "anna", "password": PASSWORD}, headers=lines)  # type: ignore[arg-type]
    assert [one.detail["address"] for one in site.events("login")] == ["172.16.0.9"]


def test_a_fault_of_the_database_names_no_value_since_it_goes_to_a_log(site: Site) -> None:
    values = {"digest": "secret-digest", "reader_id": 1, "began_at": site.clock.now, "seen_at": site.clock.now}
    with site.store.writing() as (session, _):
        session.execute(insert(PageSession).values(values))
    with site.store.engine.connect() as connection, pytest.raises(IntegrityError) as fault:
        connection.execute(insert(PageSession).values(values))
    assert "secret-digest" not in str(fault.value).replace("Key (digest)=(secret-digest)", "")


def test_the_labels_csv_holds_no_formula_for_a_spreadsheet(site: Site) -> None:
    with site.store.writing() as (session, _):
        session.execute(update(Wave).values(classes=["=1+1", "normal"]))
    site.enter("anna").read("=1+1")
    table = pd.read_csv(io.StringIO(site.enter("carl").post("/api/curator/labels.csv").text))
    assert table["label"].to_list() == ["'=1+1"]
