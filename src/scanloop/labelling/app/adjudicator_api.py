"""What an adjudicator's page asks for: images whose readings differ, and to decide them."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from scanloop.labelling.adjudication import LONGEST_COMMENT, adjudicate, disputes
from scanloop.labelling.app.guards import Adjudicator, Page
from scanloop.labelling.app.reader_api import Asked, TaskNumber, Written

router = APIRouter()
AT_ONCE = 20


class DisputeShown(BaseModel):
    """A task whose readings differ, in the order of reading, without names; its image stands at /images/{task}."""

    task: int
    classes: list[str]
    answers: list[str]


class Disputes(BaseModel):
    """The first of them, and how many there are in all."""

    count: int
    first: list[DisputeShown]


class Decision(Asked):
    """What counts, and why."""

    answer: str = Field(max_length=200)
    comment: str = Field("", max_length=LONGEST_COMMENT)


@router.get("/api/disputes")
def waiting(me: Adjudicator, page: Page) -> Disputes:
    """Tasks that wait for this adjudicator: not those that they read themselves."""
    found = disputes(page.store, me.reader)
    first = [
        DisputeShown(task=one.task, classes=list(one.classes), answers=list(one.answers)) for one in found[:AT_ONCE]
    ]
    return Disputes(count=len(found), first=first)


@router.post("/api/disputes/{task}/decide")
def decide(me: Adjudicator, page: Page, task: TaskNumber, given: Decision) -> Written:
    """Decide a task; a later decision takes an earlier one's place."""
    recorded = adjudicate(page.store, me.reader, task, given.answer, given.comment)
    return Written(task=task, at=recorded.at.isoformat())
