"""Refusals of the page: what is answered, as JSON to scripts and as a page to people, and with which code."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from scanloop.errors import ArtifactError, LabellingError, LeaseError, RoleError, ScanloopError
from scanloop.labelling.app.rendering import render

_LOG = logging.getLogger(__name__)
CODES: tuple[tuple[type[ScanloopError], int, str], ...] = (
    (LeaseError, 409, "lease"),
    (RoleError, 403, "role"),
    (LabellingError, 409, "refused"),
)
"""Code and kind of each error of the domain, the more special ones first."""


class Refused(Exception):  # noqa: N818  it is an answer, not a fault
    """A request that is refused.

    Attributes:
        code: Of HTTP.
        kind: One word for scripts, and the text's key for people.
        headers: To be answered with.
    """

    def __init__(self, code: int, kind: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.kind, self.headers = code, kind, headers or {}


def add_refusals(app: FastAPI) -> None:
    """Answer every refusal of the page and of the domain, and what FastAPI finds wrong itself."""

    @app.exception_handler(Refused)
    async def _refused(request: Request, error: Refused) -> Response:
        if error.code == 401 and _is_for_people(request):
            return RedirectResponse("/login", status_code=303)
        return _answer(request, error.code, error.kind, str(error), error.headers)

    @app.exception_handler(ScanloopError)
    async def _of_the_domain(request: Request, error: ScanloopError) -> Response:
        if isinstance(error, ArtifactError):  # its text names folders of the server
            _LOG.warning("%s: %s", request.url.path, error)
            return _answer(request, 404, "image", "this image is not at hand; the page's log says why")
        for kind, code, name in CODES:
            if isinstance(error, kind):
                return _answer(request, code, name, str(error))
        raise error

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        text = "; ".join(faults).encode("utf-8", "replace").decode()
        return _answer(request, 422, "malformed", text[:1000])

    @app.exception_handler(HTTPException)
    async def _of_starlette(request: Request, error: HTTPException) -> Response:
        return _answer(request, error.status_code, "http", str(error.detail), dict(error.headers or {}))


def _is_for_people(request: Request) -> bool:
    is_data = request.url.path.startswith(("/api/", "/images/"))
    return not is_data and "text/html" in request.headers.get("accept", "")


def _answer(request: Request, code: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Response:
    if _is_for_people(request):
        page = render(request, "refused.html", kind=kind, message=message, code=code)
        return HTMLResponse(page, status_code=code, headers=headers)
    return JSONResponse({"kind": kind, "message": message}, status_code=code, headers=headers)
