"""Takes the pictures of docs/labelling.md: python tests/label_screenshots.py docs/images/labelling."""

import io
import random
import re
import sys
import tempfile
from pathlib import Path

import PIL.Image
from label_browser import Served, Window, chromium, open_window, serve
from label_pages import add_people
from label_stores import write_queue
from sqlalchemy import select

from scanloop.artifacts import read_json, read_table, write_json
from scanloop.config import IngestConfig, SyntheticSource
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.reading import Handed, answer, next_task
from scanloop.labelling.schema import Task
from scanloop.labelling.store import Store, open_store
from scanloop.labelling.waves import publish
from scanloop.steps.ingest import ingest

SOURCE = SyntheticSource(seed=5, slices=260, size_px=192, labelled=40, contrast=0.7)
WHY = "the next euro brings +0.110 points of macro-F1 (90 % interval +0.030 to +0.190); 0.020 are asked for"
WORTH = {"f1_per_eur": 0.0011, "low": 0.0003, "high": 0.0019, "verdict": "go on", "why": WHY}
GREYS = [(level, level, level) for level in range(0, 256, 7)]
CSS = (Path(__file__).parents[1] / "src/scanloop/labelling/app/static/page.css").read_text()
THEME = [tuple(bytes.fromhex(colour)) for colour in re.findall(r"--\w+: #(\w{6})", CSS)]
GUIDELINES = """
Look at the whole slice before you answer.

| You see | Answer |
|---|---|
| a bright, round spot that does not belong to the anatomy | **lesion** |
| nothing of the kind | **normal** |
| two colleagues could differ | **unsure** |
| cut off, blurred, not a head | **bad image** |

- Invert (I) and narrow the window (W) where the spot is faint.
- Do not guess what the model would say.
"""


def prepare(folder: Path) -> tuple[Store, Path]:
    """A wave that is partly read by two people who do not always agree."""
    config = IngestConfig(seed=5, source=SOURCE, positive_class="lesion", short_side_px=192)
    catalog = folder / "catalog"
    ingest(config, output=catalog)
    manifest = read_table(catalog, "manifest")
    known = manifest[manifest["label"].notna() & (manifest["split"] == "train")]
    pool = manifest[manifest["label"].isna()]["slice_id"].tolist()[:120]
    truth = read_table(catalog, "hidden_labels.parquet").set_index("slice_id")["label"]
    store = open_store(f"sqlite:///{folder / 'labels.db'}")
    queue = write_queue(folder, pool, budget=110.0)
    facts = read_json(queue / "queue.json")
    write_json(queue / "queue.json", facts | {"forecast": WORTH})
    publish(store, queue, catalog, policy=DoubleReading("all"))
    add_people(store)
    draw = random.Random(5)
    with store.writing() as (session, _):
        for task in session.scalars(select(Task).order_by(Task.rank)):
            near = known.sample(5, random_state=task.rank)
            task.neighbours = near[["slice_id", "label"]].to_numpy().tolist()
            share = draw.uniform(0.55, 0.95)
            is_lesion = truth[task.slice_id] == "lesion"
            task.probabilities = [share, 1 - share] if is_lesion else [1 - share, share]
            task.reason = f"uncertainty {2 * (1 - share):.2f} of 1, distance 0.31 to the nearest image wanted more"
    for name, count in (("ben", 44), ("ada", 41), ("anna", 8)):
        for _ in range(count):
            task = next_task(store, name)
            assert isinstance(task, Handed)
            given = truth[task.slice_id] if draw.random() < 0.9 else draw.choice(["lesion", "normal", "unsure"])
            answer(store, name, task.task, given, task.token)
    return store, catalog


def take(window: Window, folder: Path, name: str) -> None:
    """One picture."""
    window.page.wait_for_timeout(700)
    picture = PIL.Image.open(io.BytesIO(window.page.screenshot())).convert("RGB")
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([one for colour in (*GREYS, *THEME) for one in colour])
    picture.quantize(palette=palette, dither=PIL.Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)
    print(f"{name}.png {(folder / f'{name}.png').stat().st_size // 1000} kB")


def take_all(site: Served, folder: Path) -> None:
    """Every view."""
    with chromium() as browser:
        take(open_window(browser, site, None), folder, "login")
        reader = open_window(browser, site, "anna")
        reader.ready()
        take(reader, folder, "reading")
        reader.page.keyboard.press("p")
        for key in "12":
            reader.press(key)
        reader.saved()
        for key in "+++iww":
            reader.page.keyboard.press(key)
        take(reader, folder, "zoomed")
        for key in "fn":
            reader.page.keyboard.press(key)
        take(reader, folder, "neighbours")
        for key in "ng":
            reader.page.keyboard.press(key)
        take(reader, folder, "guidelines")
        reader.page.keyboard.press("Escape")
        reader.page.keyboard.press("?")
        take(reader, folder, "keys")
        decider = open_window(browser, site, "carl", "/adjudicate")
        decider.page.wait_for_selector("#notice", state="hidden")
        take(decider, folder, "adjudication")
        decider.page.goto(f"{site.url}/curate")
        decider.page.wait_for_selector("#pairs td")
        take(decider, folder, "curator")
        french = open_window(browser, site, "anna", locale="fr-FR")
        french.ready()
        french.page.keyboard.press("n")
        take(french, folder, "french")
        tablet = {"viewport": {"width": 1024, "height": 768}, "has_touch": True}
        on_tablet = open_window(browser, site, "anna", **tablet)
        on_tablet.ready()
        take(on_tablet, folder, "tablet")


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        store, catalog = prepare(work)
        (work / "guidelines.md").write_text(GUIDELINES)
        settings = f"title: Brain MRI\nguidelines: {work / 'guidelines.md'}\n"
        with serve(work, store, catalog, settings) as site:
            take_all(site, pictures)
