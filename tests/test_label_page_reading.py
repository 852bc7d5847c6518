"""Reading through the page: tasks and their images, money, undo, what is shown when, and the audit trail."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from label_pages import LABELLED, Person, Site, SiteMaker, drawn
from label_stores import write_queue
from sqlalchemy import select

from scanloop.artifacts import read_json, read_table, write_json, write_table
from scanloop.labelling.adjudication import disputes
from scanloop.labelling.double_reading import DoubleReading
from scanloop.labelling.reading import LEASE
from scanloop.labelling.schema import Event, Task
from scanloop.labelling.waves import publish

TWICE = DoubleReading("all")


def pixels(person: Person, path: str) -> np.ndarray:
    answer = person.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"
    return np.array(PIL.Image.open(io.BytesIO(answer.content)))


def disputed(site: Site) -> int:
    """Number of a task on which Anna and Ben disagree."""
    number = site.enter("anna").read("normal")
    assert site.enter("ben").read("pneumonia") == number
    return number


def test_ten_euros_at_55_cents_are_eighteen_readings_and_the_page_says_why_there_is_no_nineteenth(
    make_site: SiteMaker,
) -> None:
    site = make_site(40, budget=10.0)
    anna = site.enter("anna")
    for _ in range(18):
        anna.read("normal")
    answer = anna.post("/api/tasks/next", {"beside": []}).json()
    assert answer["task"] is None
    assert (answer["none"]["why"], answer["none"]["left_cents"]) == ("budget", 10)
    assert "EUR 10.00, EUR 9.90 is spent" in answer["none"]["message"]
    assert anna.get("/api/progress").json() == {
        "wave": 1, "is_open": True, "tasks": 40, "read": 18, "left_cents": 10, "mine": 18, "last_hour": 18,
        "last_ten_minutes": 18,
    }  # fmt: skip


def test_the_image_of_a_task_is_the_catalogs_and_only_its_holder_sees_it(site: Site) -> None:
    anna, ben = site.enter("anna"), site.enter("ben")
    task = anna.take()
    number = int(str(task["task"]))
    shown = pixels(anna, f"/images/{number}")
    assert np.array_equal(shown, drawn(len(LABELLED)))  # the catalog's first slice that is not labelled
    for person in (ben, site.enter("ada")):
        for path in (f"/images/{number}", f"/images/{number}/neighbours/0"):
            answer = person.get(path)
            assert (answer.status_code, answer.json()["kind"]) == (409, "lease"), path
    assert pixels(site.enter("carl"), f"/images/{number}").shape == shown.shape
    anna.post(f"/api/tasks/{number}/answer", {"answer": "normal", "token": task["token"]})
    assert anna.get(f"/images/{number}").status_code == 409, "it is not in her hands any more"
    site.clock.move(seconds=LEASE.total_seconds())
    assert anna.get("/images/999999").status_code == 409


def test_two_tasks_are_fetched_ahead_and_a_lost_answer_may_be_sent_again(site: Site) -> None:
    anna = site.enter("anna")
    first = anna.take()
    second = anna.post("/api/tasks/next", {"beside": [first["task"]]}).json()["task"]
    third = anna.post("/api/tasks/next", {"beside": [first["task"], second["task"]]}).json()["task"]
    held = [first["task"], second["task"], third["task"]]
    assert len({*held}) == 3
    assert anna.post("/api/tasks/next", {"beside": held}).json()["none"]["why"] == "holding"
    given = {"answer": "normal", "token": first["token"]}
    answers = [anna.post(f"/api/tasks/{first['task']}/answer", given).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    other = anna.post(f"/api/tasks/{first['task']}/answer", given | {"answer": "pneumonia"})
    assert (other.status_code, other.json()["kind"]) == (409, "lease")
    again = anna.post(f"/api/tasks/{first['task']}/withdraw").json()
    assert again["task"] == first["task"]
    assert again["token"] != first["token"]
    assert anna.post(f"/api/tasks/{third['task']}/release").status_code == 204
    assert anna.get(f"/images/{third['task']}").status_code == 409


def test_an_answer_after_the_lease_is_refused_in_words_that_the_page_knows(site: Site) -> None:
    anna = site.enter("anna")
    task = anna.take()
    site.clock.move(seconds=LEASE.total_seconds())
    site.enter("anna")
    answer = anna.post(f"/api/tasks/{task['task']}/answer", {"answer": "normal", "token": task["token"]})
    assert (answer.status_code, answer.json()["kind"]) == (409, "lease")
    wrong = anna.take()
    answer = anna.post(f"/api/tasks/{wrong['task']}/answer", {"answer": "broken arm", "token": wrong["token"]})
    assert (answer.status_code, answer.json()["kind"]) == (409, "refused")


def test_the_models_word_is_hidden_until_the_answer_and_each_look_is_written_down(site: Site) -> None:
    anna = site.enter("anna")
    task = anna.take()
    assert "0.875" not in json.dumps(task)
    early = anna.post(f"/api/tasks/{task['task']}/reveal")
    assert (early.status_code, early.json()["message"]) == (409, "what the model says is shown after the answer")
    anna.post(f"/api/tasks/{task['task']}/answer", {"answer": "normal", "token": task["token"]})
    word = anna.post(f"/api/tasks/{task['task']}/reveal").json()
    assert word == {"task": task["task"], "probabilities": {"normal": 0.125, "pneumonia": 0.875}}
    assert site.enter("ben").post(f"/api/tasks/{task['task']}/reveal").status_code == 409
    assert [(one.task_id, one.detail) for one in site.events("reveal")] == [(task["task"], {"answered": True})]


def test_the_models_word_is_shown_beforehand_only_where_the_setting_says_so(make_site: SiteMaker) -> None:
    site = make_site(settings={"probabilities_before_answer": True})
    anna = site.enter("anna")
    task = anna.take()
    assert anna.post(f"/api/tasks/{task['task']}/reveal").json()["probabilities"]["pneumonia"] == 0.875
    assert site.enter("ben").post(f"/api/tasks/{task['task']}/reveal").status_code == 409, "it is not his"
    assert [one.detail for one in site.events("reveal")] == [{"answered": False}]


def test_five_alike_images_are_shown_with_their_labels_and_that_is_written_down(site: Site) -> None:
    anna = site.enter("anna")
    number = anna.take()["task"]
    assert anna.post(f"/api/tasks/{number}/neighbours").json() == {
        "labels": ["normal", "pneumonia", "normal", "pneumonia", "normal"],
        "known": [None] * 5,
    }
    for index in range(5):
        assert np.array_equal(pixels(anna, f"/images/{number}/neighbours/{index}"), drawn(index))
    assert anna.get(f"/images/{number}/neighbours/5").status_code == 422
    assert [one.detail for one in site.events("neighbours")] == [{"shown": 5}]
    assert [one.detail for one in site.events("neighbour")] == [{"index": index} for index in range(5)]


def test_a_task_without_alike_images_or_a_models_word_says_so(site: Site) -> None:
    with site.store.writing() as (session, _):
        for task in session.scalars(select(Task)):
            task.neighbours = task.probabilities = None
    anna = site.enter("anna")
    number = anna.take()["task"]
    assert anna.post(f"/api/tasks/{number}/neighbours").json() == {"labels": [], "known": []}
    assert anna.get(f"/images/{number}/neighbours/0").status_code == 409
    anna.read("normal")
    assert anna.post(f"/api/tasks/{number}/reveal").json()["probabilities"] is None


def test_an_image_that_no_catalog_holds_is_said_to_be_missing_without_its_id_and_can_be_marked(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(3)
    with site.store.writing() as (session, _):
        for task in session.scalars(select(Task)):
            task.slice_id = f"gone-{task.rank}"
    anna = site.enter("anna")
    answer = anna.get(f"/images/{anna.take()['task']}")
    assert (answer.status_code, answer.json()["kind"]) == (404, "image")
    assert str(site.catalog) not in answer.text
    assert "gone-" not in answer.text
    assert "no catalog that the page was given holds this image" in caplog.text
    assert anna.read("bad image") == 1


def test_an_adjudicator_sees_both_readings_without_names_and_decides_and_a_reader_of_the_image_may_not(
    make_site: SiteMaker,
) -> None:
    site = make_site(policy=TWICE)
    ada = site.enter("ada")
    number = disputed(site)
    waiting = ada.get("/api/disputes")
    assert waiting.json() == {
        "count": 1,
        "first": [{"task": number, "classes": ["normal", "pneumonia"], "answers": ["normal", "pneumonia"]}],
    }
    assert pixels(ada, f"/images/{number}").ndim == 2
    (view,) = [one for one in site.events("view") if one.detail]
    assert (view.task_id, view.detail) == (number, {"role": "adjudicator"})
    assert site.enter("ben").get(f"/images/{number}").status_code == 409
    decided = ada.post(f"/api/disputes/{number}/decide", {"answer": "pneumonia", "comment": "consolidation"})
    assert decided.status_code == 200
    assert disputes(site.store, "ada") == []
    assert ada.get("/api/disputes").json()["count"] == 0
    assert ada.post("/api/disputes/12/decide", {"answer": "normal"}).json()["kind"] == "refused"
    gone = site.enter("anna").post(f"/api/tasks/{number}/withdraw")
    assert (gone.status_code, gone.json()["kind"]) == (409, "refused")


def test_a_curator_sees_the_wave_the_readers_and_their_agreement(make_site: SiteMaker) -> None:
    site = make_site(policy=TWICE)
    disputed(site)
    overview = site.enter("carl").get("/api/curator/overview").json()
    wave = overview["wave"]
    assert (wave["tasks"], wave["read"], wave["begun"], wave["disputed"]) == (12, 1, 0, 1)
    assert (wave["budget_cents"], wave["spent_cents"], wave["held_cents"]) == (100_000, 110, 0)
    assert overview["agreement"]["pairs"][0]["readers"] == ["anna", "ben"]
    assert overview["last_hour"] == {"anna": 1, "ben": 1}
    assert overview["forecast"] is None


def test_what_a_queue_says_of_its_images_and_of_the_next_euro_reaches_the_page(tmp_path: Path, site: Site) -> None:
    said = {"f1_per_eur": 0.0012, "low": 0.0004, "high": 0.002, "verdict": "stop", "why": "too little"}
    queue = write_queue(tmp_path, ["new-1", "new-2"], key="key-2")
    facts = read_json(queue / "queue.json")
    write_json(queue / "queue.json", facts | {"forecast": said | {"labels": 60}})
    rows = read_table(queue, "queue.parquet")
    rows["probabilities"] = [[0.25, 0.75], None]
    rows["neighbours"] = [LABELLED[:2], []]
    rows["neighbour_labels"] = [["normal", "pneumonia"], []]
    write_table(queue, "queue.parquet", rows)
    publish(site.store, queue, site.catalog)
    assert site.enter("carl").get("/api/curator/overview").json()["forecast"] == said
    with site.store.reading() as session:
        query = select(Task.probabilities, Task.neighbours).where(Task.wave_id == 2).order_by(Task.rank)
        assert [tuple(row) for row in session.execute(query)] == [
            ([0.25, 0.75], [["known-00", "normal"], ["known-01", "pneumonia"]]), (None, []),
        ]  # fmt: skip


def test_a_curator_raises_the_budget_stops_the_wave_and_takes_the_labels(make_site: SiteMaker) -> None:
    site = make_site(4, budget=0.55)
    anna, carl = site.enter("anna"), site.enter("carl")
    anna.read("normal")
    assert anna.post("/api/tasks/next", {"beside": []}).json()["none"]["why"] == "budget"
    for wrong, code in (("0.10", 409), ("-1", 422), ("1e400", 422), ("1.005", 422), ("1e12", 422), ("NaN", 422)):
        assert carl.post("/api/curator/budget", {"budget_eur": wrong}).status_code == code, wrong
    assert carl.post("/api/curator/budget", {"budget_eur": "1.10"}).json() == {"wave": 1}
    assert [one.detail for one in site.events("budget")] == [{"before": 55, "after": 110}]
    assert anna.read("pneumonia")
    assert carl.post("/api/curator/close").json() == {"wave": 1}
    assert carl.post("/api/curator/close").json() == {"wave": None}
    assert anna.post("/api/tasks/next", {"beside": []}).json()["none"]["why"] == "no_wave"
    assert carl.post("/api/curator/budget", {"budget_eur": "9"}).json()["kind"] == "refused"
    answer = carl.post("/api/curator/labels.csv")
    table = pd.read_csv(io.StringIO(answer.text))
    assert table[["slice_id", "label"]].to_numpy().tolist() == [["slice-00001", "normal"], ["slice-00002", "pneumonia"]]
    assert "attachment" in answer.headers["content-disposition"]
    assert len(site.events("export")) == 1
    assert [one.detail for one in site.events("download")] == [{"labels": 2}]


def test_every_view_and_answer_stands_in_the_audit_trail(site: Site) -> None:
    anna = site.enter("anna")
    number = anna.read("normal")
    anna.post(f"/api/tasks/{number}/withdraw")
    anna.read("unsure")
    with site.store.reading() as session:
        found = session.execute(select(Event.kind, Event.detail).where(Event.task_id == number).order_by(Event.id))
        kinds = [row.kind for row in found]
    assert kinds == ["view", "answer", "withdraw", "view", "answer"]


def test_guidelines_are_shown_as_text_with_examples_of_each_class(make_site: SiteMaker, tmp_path: Path) -> None:
    file = tmp_path / "guidelines.md"
    file.write_text("# Chest\n\n<script>alert(1)</script> *Look* at [x](javascript:alert(1)) ![p](https://x.test/p)\n")
    site = make_site(settings={"guidelines": file})
    anna = site.enter("anna")
    page = anna.get("/").text
    assert "<h1>Chest</h1>" in page
    assert "<em>Look</em>" in page
    assert "&lt;script&gt;alert(1)" in page
    for bad in ("<script>alert", 'href="javascript', 'src="http'):
        assert bad not in page
    assert page.count("/images/examples/") == 6
    assert np.array_equal(pixels(anna, "/images/examples/1/0"), drawn(1))
    assert anna.get("/images/examples/7/0").status_code == 404
    file.unlink()
    assert anna.get("/").status_code == 200, "a page without guidelines is better than none"
