"""The page as an application: routes, refusals, shield."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import select
from starlette.staticfiles import StaticFiles

from scanloop import __version__
from scanloop.labelling.app import adjudicator_api, curator_api, guidance, pages, reader_api
from scanloop.labelling.app.guards import Page
from scanloop.labelling.app.refusals import add_refusals
from scanloop.labelling.app.service import make_service
from scanloop.labelling.app.settings import PageSettings
from scanloop.labelling.app.shielding import Shield
from scanloop.labelling.store import CONNECTIONS, Store

ROUTERS = (guidance.router, reader_api.router, adjudicator_api.router, curator_api.router, pages.router)


def make_app(store: Store, settings: PageSettings) -> FastAPI:
    """The page over a label store.

    Args:
        store: The label store; whoever opened it closes it.
        settings: The page's.

    Raises:
        ArtifactError: A catalog is none.
    """
    app = FastAPI(
        title="scanloop labelling", version=__version__, openapi_url=None, docs_url=None, redoc_url=None,
        lifespan=_with_threads,
    )  # fmt: skip
    app.state.service = make_service(store, settings)
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/healthz", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    add_refusals(app)
    app.add_middleware(Shield, most_body_bytes=settings.most_body_bytes, is_secure=settings.secure_cookies)
    return app


@asynccontextmanager
async def _with_threads(_: FastAPI) -> AsyncIterator[None]:
    """As many threads as the store has connections: none waits for one while it could answer somebody else."""
    to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
    yield


def _alive() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "alive"}


def _ready(page: Page) -> JSONResponse:
    """Whether the label store answers, too."""
    try:
        with page.store.reading() as session:
            session.execute(select(1))
    except Exception:  # whatever its driver raises
        return JSONResponse({"status": "the label store does not answer"}, status_code=503)
    return JSONResponse({"status": "ready"})
