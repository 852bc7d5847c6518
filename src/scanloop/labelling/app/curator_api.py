"""What a curator's page asks for: how the wave goes and what it costs, to stop it, to go on, and the labels as CSV."""

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from scanloop.artifacts import read_table
from scanloop.labelling.agreement import Agreement
from scanloop.labelling.app.forecasts import Forecast, last_forecast
from scanloop.labelling.app.guards import Curator, Page
from scanloop.labelling.app.reader_api import Asked
from scanloop.labelling.csv_files import defused
from scanloop.labelling.export import export
from scanloop.labelling.progress import Progress
from scanloop.labelling.readers import find_reader
from scanloop.labelling.store import record
from scanloop.labelling.waves import LARGEST_CENTS, close_wave, raise_budget

router = APIRouter()


class Overview(BaseModel):
    """The open wave or the last one, how readers agree, and what the next labels are worth."""

    wave: Progress | None
    agreement: Agreement
    last_hour: dict[str, int]
    forecast: Forecast | None


class Budget(Asked):
    """All that the open wave may cost, in euros."""

    budget_eur: Decimal = Field(ge=0, le=LARGEST_CENTS // 100, decimal_places=2)


class Wave(BaseModel):
    """Number of the wave that was closed or whose budget was raised; null where none was open."""

    wave: int | None


@router.get("/api/curator/overview")
def overview(_: Curator, page: Page) -> Overview:
    """How the wave goes."""
    agreement, last_hour = page.agreement()
    return Overview(wave=page.counted(), agreement=agreement, last_hour=last_hour, forecast=last_forecast(page.store))


@router.post("/api/curator/close")
def stop(me: Curator, page: Page) -> Wave:
    """Close the open wave; what is handed out may still be answered."""
    closed = close_wave(page.store, me.reader)
    page.counted.forget()
    return Wave(wave=closed)


@router.post("/api/curator/budget")
def go_on(me: Curator, page: Page, wanted: Budget) -> Wave:
    """Raise the open wave's budget."""
    raised = raise_budget(page.store, me.reader, wanted.budget_eur)
    page.counted.forget()
    return Wave(wave=raised)


class Csv(Response):
    """A table."""

    media_type = "text/csv; charset=utf-8"


@router.post("/api/curator/labels.csv", response_class=Csv)
def labels(me: Curator, page: Page) -> Csv:
    """The labels as of now; that they went out, and to whom, is written down."""
    with tempfile.TemporaryDirectory() as folder:
        export(page.store, Path(folder) / "labels")
        table = read_table(Path(folder) / "labels", "labels.parquet")
    table["label"] = table["label"].map(defused, na_action="ignore")  # classes may be named by folders of strangers
    with page.store.writing() as (session, now):
        record(session, now, "download", reader=find_reader(session, me.reader, "curator"), labels=len(table))
    return Csv(table.to_csv(index=False), headers={"Content-Disposition": 'attachment; filename="labels.csv"'})


@router.get("/api/openapi.json", include_in_schema=False)
def schema(_: Curator, request: Request) -> dict[str, Any]:
    """The API, for programs."""
    described: dict[str, Any] = request.app.openapi()
    return described
