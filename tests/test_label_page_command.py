"""`scanloop label serve` and `scanloop label reader`: who may use the page, and no secret among the options."""

import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import Result
from label_pages import write_page_catalog
from label_stores import slice_ids
from typer.testing import CliRunner

from scanloop.cli import app
from scanloop.errors import ConfigError, LabellingError, RoleError
from scanloop.labelling.app.settings import PageSettings, load_settings
from scanloop.labelling.passwords import check_password
from scanloop.labelling.readers import role_of
from scanloop.labelling.store import open_store

DOCS = Path(__file__).parents[1] / "docs" / "labelling.md"


def invoke(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["label", *arguments], input=typed, env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'labels.db'}"


def test_a_reader_is_added_with_a_password_from_a_prompt_or_a_file_disabled_and_enabled(
    url: str, tmp_path: Path
) -> None:
    typed = invoke("reader", "add", "anna", "--store", url, typed="twelve letters\ntwelve letters\n")
    assert typed.exit_code == 0, typed.output
    assert "twelve letters" not in typed.output
    (tmp_path / "carl.txt").write_text("a longer one\nmore lines\n")
    filed = ("--role", "curator", "--password-file", str(tmp_path / "carl.txt"))
    assert invoke("reader", "add", "carl", *filed, "--store", url).output == "carl: curator\n"
    store = open_store(url)
    check_password(store, "anna", "twelve letters")
    check_password(store, "carl", "a longer one")
    assert invoke("reader", "disable", "anna", "--store", url).exit_code == 0
    with pytest.raises(RoleError):
        check_password(store, "anna", "twelve letters")
    assert invoke("reader", "enable", "anna", "--store", url).exit_code == 0
    check_password(store, "anna", "twelve letters")
    proxied = invoke("reader", "add", "olga@hospital.org", "--no-password", "--store", url)
    assert proxied.exit_code == 0
    with pytest.raises(RoleError):
        check_password(store, "olga@hospital.org", "")


def test_refusals_say_what_to_do(url: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, kind, fault in (
        (("reader", "disable", "nobody"), RoleError, "a curator adds readers"),
        (("reader", "add", "x", "--role", "king", "--no-password"), LabellingError, "reader, adjudicator, curator"),
        (("reader", "add", "x", "--password-file", str(tmp_path / "none.txt")), ConfigError, "cannot be read"),
        (("reader", "add", "x", "--password-file", str(tmp_path / "empty.txt")), ConfigError, "first line is empty"),
        (("serve",), ConfigError, "--catalog"),
    ):
        open_store(url).engine.dispose()
        refused = invoke(*arguments, "--store", url).exception
        assert isinstance(refused, kind), arguments
        assert fault in str(refused)
    secret = invoke("serve", "--store", "postgresql://anna:hunter2@host/labels").exception
    assert isinstance(secret, LabellingError)
    assert "hunter2" not in str(secret)


def test_a_mistyped_store_is_refused_and_not_made_by_what_only_looks_at_one(url: str, tmp_path: Path) -> None:
    catalog = str(tmp_path / "catalog")
    for arguments in (
        ("status",), ("close", "--by", "carl"), ("export", "--output", str(tmp_path / "labels")),
        ("serve", "--catalog", catalog), ("reader", "disable", "anna"), ("csv", "export", "--catalog", catalog,
        "--output", str(tmp_path / "reading")),
    ):  # fmt: skip
        refused = invoke(*arguments, "--store", url.replace("labels.db", "typo/labels.db")).exception
        assert isinstance(refused, LabellingError), arguments
        assert "no such label store; scanloop label publish" in str(refused)
    assert list(tmp_path.iterdir()) == []


def test_a_new_password_leaves_the_role_and_a_refused_one_adds_nobody(url: str, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("a newer password\n")
    (tmp_path / "short.txt").write_text("short\n")
    config = tmp_path / "run.yaml"
    config.write_text(f"name: run\ningest: {{source: {{kind: synthetic}}}}\nlabel: {{store: '{url}'}}\n")
    added = invoke("reader", "add", "carl", "--role", "curator", "--no-password", "--config", str(config))
    assert added.exit_code == 0, added.output
    again = invoke("reader", "add", "carl", "--password-file", str(tmp_path / "new.txt"), "--config", str(config))
    assert again.output == "carl: curator\n"
    check_password(open_store(url), "carl", "a newer password")
    refused = invoke("reader", "add", "anna", "--password-file", str(tmp_path / "short.txt"), "--store", url)
    assert "12 to 1000 characters" in str(refused.exception)
    with pytest.raises(RoleError, match="nobody with this name"):
        role_of(open_store(url), "anna")


def test_settings_in_a_file_are_overridden_by_options_and_never_hold_the_stores_address(tmp_path: Path) -> None:
    file = tmp_path / "page.yaml"
    file.write_text("catalogs: [a, b]\nport: 9000\ntitle: Chests\n")
    found = load_settings(file, {"store": "sqlite:///x", "port": 9001, "host": None, "catalogs": ()})
    assert (found.port, found.title, found.host) == (9001, "Chests", "127.0.0.1")
    assert found.catalogs == (Path("a"), Path("b"))
    assert "sqlite" not in repr(found)
    file.write_text("store: sqlite:///x\n")
    with pytest.raises(ConfigError, match="SCANLOOP_LABEL_PASSWORD_FILE"):
        load_settings(file, {})
    file.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(file, {})
    file.write_text("port: 80\ntitle: [secret\n")
    with pytest.raises(ConfigError, match="line 3") as refused:
        load_settings(file, {})
    assert "secret" not in str(refused.value)
    file.write_text("catalogs: runs/a/catalog\nprot: 80\n")
    with pytest.raises(ConfigError, match=r"wrong:\n  prot: there is no such setting$"):
        load_settings(file, {"store": "sqlite:///x"})
    file.write_text("catalogs: runs/a/catalog\n")
    assert load_settings(file, {"store": "sqlite:///x"}).catalogs == (Path("runs/a/catalog"),)
    file.write_text("login: proxy\ncatalogs: [a]\n")
    with pytest.raises(ConfigError, match="wrong:\n  login: proxy needs trusted_proxies"):
        load_settings(file, {"store": "sqlite:///x"})


def test_a_port_in_use_is_said_with_what_to_do(url: str, tmp_path: Path) -> None:
    catalog = write_page_catalog(tmp_path, slice_ids(2))
    open_store(url).engine.dispose()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = invoke("serve", "--store", url, "--catalog", str(catalog), "--plain-http", "--port", port)
    assert isinstance(refused.exception, ConfigError)
    assert f"cannot listen at 127.0.0.1:{port}; --port" in str(refused.exception)


def test_the_docs_name_every_setting_and_every_command_has_an_example() -> None:
    told = DOCS.read_text()
    for name in PageSettings.model_fields:
        assert name == "store" or f"`{name}`" in told, f"docs/labelling.md does not name {name}"
    for command in ("serve", "reader add", "reader disable", "reader enable"):
        text = " ".join(invoke(*command.split(), "--help").output.split())
        assert re.search(rf"Examples?: scanloop label {command} ", text), command
    for picture in re.findall(r"\((images/[\w/.]+)\)", told):
        path = DOCS.parent / picture
        assert path.stat().st_size < 200_000, picture


def test_the_served_page_is_there_over_tls_with_a_certificate_of_ones_own(url: str, tmp_path: Path) -> None:
    catalog = write_page_catalog(tmp_path, slice_ids(2))
    open_store(url).engine.dispose()
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    try:
        subprocess.run([*openssl, *subject, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"certificate: {tmp_path / 'cert.pem'}\ncertificate_key: {tmp_path / 'key.pem'}\n"
    (tmp_path / "page.yaml").write_text(settings)
    command = [sys.executable, "-c", "from scanloop.cli import main; main()", "label", "serve", "--store", url]
    options = ["--catalog", str(catalog), "--settings", str(tmp_path / "page.yaml"), "--port", str(port)]
    server = subprocess.Popen([*command, *options], stderr=subprocess.PIPE)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    try:
        for _ in range(300):
            assert server.poll() is None, server.stderr.read()  # type: ignore[union-attr]
            try:
                answer = urllib.request.urlopen(f"https://localhost:{port}/login", context=trusting, timeout=5)
            except OSError:
                time.sleep(0.1)
            else:
                break
        answer.close()
        assert "max-age" in answer.headers["strict-transport-security"]
        assert answer.headers["server"] is None
    finally:
        server.terminate()
        server.wait(20)
