"""A page on a real server in a real browser: Chromium, driven as people drive it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from label_pages import PASSWORD, add_people, say_what_the_model_says, write_page_catalog
from label_stores import slice_ids, write_queue
from playwright.sync_api import Browser, Page, sync_playwright

from scanloop.archive.decode import decode, encode_png
from scanloop.archive.readers.synthetic import read_synthetic
from scanloop.config import IngestConfig, SyntheticSource
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import publish

NEXT = """n => Number(document.querySelector('#image').dataset.answered) > n
  && document.querySelector('#notice').hidden"""


def phantoms(count: int, size_px: int = 128) -> list[bytes]:
    """PNGs of synthetic slices; those with lesions and those without take turns as far as the cohort goes."""
    source = SyntheticSource(seed=5, slices=count, size_px=size_px, labelled=4, contrast=1.0, copy_share=0.0)
    config = IngestConfig(seed=5, source=source, positive_class="lesion", short_side_px=size_px)
    return [one.payload for one in read_synthetic(config)]  # type: ignore[misc]


def real_images(count: int) -> list[bytes]:
    """PNGs of real chest X-rays where they are at hand, else of synthetic slices."""
    folder = Path(os.environ.get("SCANLOOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    archive = folder / "kermany_cxr_224.tar"
    if not archive.exists():
        return phantoms(count)
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".jpeg"):
                image = decode(tar.extractfile(member).read(), min_side_px=16, max_pixels=10**7)  # type: ignore[union-attr]
                found.append(encode_png(image))
            if len(found) == count:
                break
    return found


@dataclass
class Served:
    """A page that is served.

    Attributes:
        url: Its address.
        store: Its label store.
        folder: Where its files are.
    """

    url: str
    store: Store
    folder: Path


@contextmanager
def served(folder: Path, tasks: int, images: list[bytes]) -> Iterator[Served]:
    """A page over a wave of so many tasks, each of which wants two readings."""
    ids = slice_ids(tasks)
    store = open_store(f"sqlite:///{folder / 'labels.db'}")
    catalog = write_page_catalog(folder, ids, images=images)
    publish(store, write_queue(folder, ids, budget=50_000.0), catalog, policy=DoubleReading("all"))
    add_people(store)
    say_what_the_model_says(store)
    with serve(folder, store, catalog, "requests_a_minute: 100000\n") as site:
        yield site


@contextmanager
def serve(folder: Path, store: Store, catalog: Path, settings: str) -> Iterator[Served]:
    """`scanloop label serve` over the store `labels.db` in a folder."""
    (folder / "page.yaml").write_text(f"catalogs: [{catalog}]\nlogins_a_minute: 1000\n{settings}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from scanloop.cli import main; main()", "label", "serve", "--plain-http"]
    about = [f"--store=sqlite:///{folder / 'labels.db'}", f"--settings={folder / 'page.yaml'}", f"--port={port}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, *about], stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{port}/readyz", server, folder / "log")
        yield Served(f"http://127.0.0.1:{port}", store, folder)
    finally:
        server.terminate()
        server.wait(20)
        store.engine.dispose()


def _await(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=1)
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the page did not start: {log.read_text()}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where none is installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Window:
    """Somebody's window on the page.

    Attributes:
        page: Playwright's.
        url: Address of the site.
        faults: What the browser complained of: errors, refused styles and scripts, requests to others.
    """

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def press(self, key: str) -> None:
        """Press an answer's key when an image is there, and wait until the next one is."""
        answered = int(self.page.get_attribute("#image", "data-answered") or 0)
        self.page.keyboard.press(key)
        self.page.wait_for_function(NEXT, arg=answered)

    def until(self, selector: str, text: str) -> None:
        """Wait until an element's text begins with this."""
        begins = "([selector, text]) => document.querySelector(selector).textContent.startsWith(text)"
        self.page.wait_for_function(begins, arg=[selector, text])

    def ready(self) -> None:
        """Wait until an image is there to be read."""
        self.page.wait_for_selector("#notice", state="hidden")

    def saved(self) -> None:
        """Wait until every answer is in the store."""
        self.until("#saved", "All saved")

    def key_to_image_ms(self, keys: int) -> list[float]:
        """Milliseconds from each answer's key to the frame that showed the next image, once that many are drawn."""
        self.page.wait_for_function(
            "keys => performance.getEntriesByName('key to next image').length >= keys", arg=keys
        )
        entries = "() => performance.getEntriesByName('key to next image').map(one => one.duration)"
        return [float(one) for one in self.page.evaluate(entries)]


def open_window(browser: Browser, site: Served, name: str | None, path: str = "/", **context: object) -> Window:
    """A window of somebody who has logged in by name and password; of nobody where there is no name."""
    options: dict[str, object] = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"} | context
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    window = Window(page, site.url)
    page.on("console", lambda one: window.faults.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: window.faults.append(str(error)))
    page.on("request", lambda one: _note_strangers(one.url, window))
    page.goto(f"{site.url}/login")
    if name is not None:
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/(adjudicate|curate)?$"))
        if page.url != site.url + path:  # a log-in leads where the role works
            page.goto(site.url + path)
    return window


def _note_strangers(url: str, window: Window) -> None:
    if not url.startswith((window.url, "blob:", "data:")):
        window.faults.append(f"a request to {url}")
