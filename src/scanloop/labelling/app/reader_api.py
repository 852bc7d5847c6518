"""What a reader's page asks for: the next task, its image, to write an answer down, to take it back."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from scanloop.labelling.app.guards import Me, Page
from scanloop.labelling.app.reasons import reason_of
from scanloop.labelling.looking import alike_images, image_of, neighbour_of, reveal
from scanloop.labelling.progress import pace
from scanloop.labelling.reading import MOST_HELD, Handed, NoTask, answer, next_task, release, withdraw
from scanloop.labelling.settling import LARGEST_NUMBER

router = APIRouter()
TaskNumber = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="Number of the task")]


class Asked(BaseModel):
    """Fields of a request; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class Beside(Asked):
    """Tasks that the page holds already and does not want again."""

    beside: list[Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]] = Field([], max_length=2 * MOST_HELD)


class Answer(Asked):
    """An answer, with the token that came with the task."""

    answer: str = Field(max_length=200)
    token: str = Field(max_length=100)


class TaskShown(BaseModel):
    """A task in the reader's hands; its image stands at /images/{task}."""

    task: int
    classes: list[str]
    reason: str
    reason_percent: int | None
    reason_words: str
    token: str
    seconds_left: float


class NothingToRead(BaseModel):
    """Why there is no task."""

    why: Literal["no_wave", "all_read", "budget", "holding", "busy"]
    message: str
    left_cents: int | None


class Next(BaseModel):
    """The next task, or why there is none."""

    task: TaskShown | None
    none: NothingToRead | None


class Written(BaseModel):
    """An answer that is in the store for good."""

    task: int
    at: str


class Far(BaseModel):
    """How far the wave is, and how fast this reader is."""

    wave: int
    is_open: bool
    tasks: int
    read: int
    left_cents: int
    mine: int
    last_hour: int
    last_ten_minutes: int


class Known(BaseModel):
    """What the feature repository knows of an image: whence its label, its cluster, the wave that it was last in."""

    source: Literal["given", "read"] | None
    cluster: int | None
    wave: int | None


class Neighbours(BaseModel):
    """Labels of the labelled images that are most alike; they stand at /images/{task}/neighbours/{0, 1, ...}."""

    labels: list[str]
    known: list[Known | None]


class Word(BaseModel):
    """The model's calibrated probability of each class; null where it said nothing of this image."""

    task: int
    probabilities: dict[str, float] | None


def _shown(page: Page, handed: Handed) -> TaskShown:
    why = reason_of(handed.reason)
    return TaskShown(
        task=handed.task,
        classes=list(handed.classes),
        reason=why.kind,
        reason_percent=why.percent,
        reason_words=why.words,
        token=handed.token,
        seconds_left=max(0.0, (handed.expires_at - page.store.clock()).total_seconds()),
    )


@router.post("/api/tasks/next")
def hand_out(me: Me, page: Page, held: Beside) -> Next:
    """The task to read next."""
    found = next_task(page.store, me.reader, beside=held.beside)
    if isinstance(found, NoTask):
        return Next(task=None, none=NothingToRead(why=found.why, message=found.message, left_cents=found.left_cents))
    return Next(task=_shown(page, found), none=None)


@router.post("/api/tasks/{task}/answer")
def write_down(me: Me, page: Page, task: TaskNumber, given: Answer) -> Written:
    """Write an answer down; the same one sent again is the same."""
    recorded = answer(page.store, me.reader, task, given.answer, given.token)
    return Written(task=task, at=recorded.at.isoformat())


@router.post("/api/tasks/{task}/withdraw")
def take_back(me: Me, page: Page, task: TaskNumber) -> TaskShown:
    """Take an answer back and the task into the same hands."""
    return _shown(page, withdraw(page.store, me.reader, task))


@router.post("/api/tasks/{task}/release", status_code=204)
def give_back(me: Me, page: Page, task: TaskNumber) -> None:
    """Give a task back unread."""
    release(page.store, me.reader, task)


@router.post("/api/tasks/{task}/neighbours")
def show_neighbours(me: Me, page: Page, task: TaskNumber) -> Neighbours:
    """Labels of the images that are most alike; that they were looked at is written down."""
    alike = alike_images(page.store, me.reader, task)
    found = page.known_of([slice_id for slice_id, _ in alike])
    return Neighbours(
        labels=[label for _, label in alike],
        known=[None if one is None else _known(one, label) for (_, label), one in zip(alike, found, strict=True)],
    )


def _known(found: dict[str, Any], label: str) -> Known:
    source = found["label_source"] if found["label"] == label else None  # of another label since the wave was published
    return Known(source=source, cluster=found["cluster"], wave=found["wave"])


@router.post("/api/tasks/{task}/reveal")
def show_word(me: Me, page: Page, task: TaskNumber) -> Word:
    """What the model said of an image, after the answer; that it was looked at is written down."""
    word = reveal(page.store, me.reader, task, beforehand=page.settings.probabilities_before_answer)
    return Word(task=task, probabilities=word.probabilities)


@router.get("/api/progress")
def how_far(me: Me, page: Page) -> Far | None:
    """How far the wave is; counted every two seconds at most."""
    wave = page.counted()
    if wave is None:
        return None
    mine = pace(page.store, me.reader, wave.wave)
    return Far(
        wave=wave.wave,
        is_open=wave.is_open,
        tasks=wave.tasks,
        read=wave.read,
        left_cents=wave.budget_cents - wave.spent_cents - wave.held_cents,
        mine=mine.mine,
        last_hour=mine.last_hour,
        last_ten_minutes=mine.last_ten_minutes,
    )


class Png(Response):
    """An image."""

    media_type = "image/png"


@router.get("/images/{task}", response_class=Png)
def image(me: Me, page: Page, task: TaskNumber) -> Png:
    """Image of a task, for who holds it."""
    return Png(page.pictures.png(image_of(page.store, me.reader, task)))


@router.get("/images/{task}/neighbours/{index}", response_class=Png)
def neighbour(me: Me, page: Page, task: TaskNumber, index: Annotated[int, Path(ge=0, le=4)]) -> Png:
    """One of the labelled images that are most alike."""
    return Png(page.pictures.png(neighbour_of(page.store, me.reader, task, index)))
