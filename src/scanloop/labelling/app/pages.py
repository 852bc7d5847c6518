"""Pages for people: log in and out, read, decide, watch, and the language."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from scanloop.errors import RoleError
from scanloop.labelling.app.guards import (
    Adjudicator,
    Curator,
    Me,
    Page,
    check_origin,
    client_address,
    cookie_name,
    name_of_proxy,
    session_of,
)
from scanloop.labelling.app.guidance import guidelines_of
from scanloop.labelling.app.refusals import Refused
from scanloop.labelling.app.rendering import render
from scanloop.labelling.app.service import Service
from scanloop.labelling.app.texts import LANGUAGES
from scanloop.labelling.passwords import check_password
from scanloop.labelling.sessions import refused_sign_in, sign_in, sign_out

router = APIRouter(include_in_schema=False)
STARTS = {"adjudicator": "/adjudicate", "curator": "/curate"}
"""Where a log-in leads by role: whoever only looks is to hold no images."""
BACK = ("/", "/login", "/adjudicate", "/curate")


@router.get("/login", response_class=HTMLResponse)
def login_page(request: Request, page: Page) -> Response:
    """Where somebody logs in; behind an OIDC proxy there is nothing to fill in."""
    if page.settings.login == "proxy":
        return RedirectResponse("/", status_code=303)
    return HTMLResponse(render(request, "login.html", failed=False))


@router.post("/login", response_class=HTMLResponse)
async def log_in(
    request: Request,
    page: Page,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Check name and password; whoever is right gets a session of a new id, whatever the browser held before."""
    if page.settings.login == "proxy":
        raise Refused(403, "proxy", "this page takes the word of its proxy; passwords are off")
    check_origin(request, page)
    return await to_thread.run_sync(_log_in, request, page, name, password, limiter=page.logging_in)


def _log_in(request: Request, page: Service, name: str, password: str) -> Response:
    address = client_address(request, page)
    wait = page.logins_of_addresses.wait_seconds(address) or page.logins_of_names.wait_seconds(name)
    if wait:
        raise Refused(429, "too_often", "too many log-ins were tried", {"Retry-After": str(wait)})
    try:
        check_password(page.store, name, password)
        before = request.cookies.get(cookie_name(page))
        secret = sign_in(page.store, name, page.lifetime, how="password", address=address, instead_of=before)
        page.sessions.forget(before or "")
    except RoleError:
        refused_sign_in(page.store, name, address)
        return HTMLResponse(render(request, "login.html", failed=True), status_code=403)
    page.logins_of_addresses.give_back(address)
    who = page.sessions.ask(secret)
    start = STARTS.get(who.role, "/") if who is not None else "/"
    return _with_session(RedirectResponse(start, status_code=303), page, secret)


@router.post("/logout")
def log_out(request: Request, _: Me, page: Page) -> Response:
    """End the session; the tasks in its reader's hands go back."""
    name = cookie_name(page)
    sign_out(page.store, request.cookies.get(name, ""))
    page.sessions.forget(request.cookies.get(name, ""))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(name, secure=page.settings.secure_cookies, httponly=True, samesite="lax")
    return answer


@router.post("/language")
def choose_language(
    request: Request,
    page: Page,
    language: Annotated[str, Form(max_length=2)],
    back: Annotated[str, Form(max_length=20)],
) -> Response:
    """Remember which language somebody reads."""
    check_origin(request, page)
    answer = RedirectResponse(back if back in BACK else "/", status_code=303)
    if language in LANGUAGES:
        secure = page.settings.secure_cookies
        answer.set_cookie("language", language, max_age=31_536_000, secure=secure, httponly=True, samesite="lax")
    return answer


@router.get("/", response_class=HTMLResponse)
def reading_page(request: Request, page: Page) -> Response:
    """Where images are read. A reader whom a trusted proxy names gets their session here."""
    if page.settings.login == "password":
        me = session_of(request, page)
        return HTMLResponse(render(request, "read.html", me=me, **_about(page)))
    try:
        me = session_of(request, page)
    except Refused as refused:
        if refused.code != 401:
            raise
        name, address = name_of_proxy(request, page), client_address(request, page)
        if name is None:
            raise Refused(403, "proxy", "the proxy names nobody; log in there") from refused
        secret = sign_in(page.store, name, page.lifetime, how="proxy", address=address)
        return _with_session(RedirectResponse("/", status_code=303), page, secret)
    return HTMLResponse(render(request, "read.html", me=me, **_about(page)))


@router.get("/adjudicate", response_class=HTMLResponse)
def adjudication_page(request: Request, me: Adjudicator, page: Page) -> Response:
    """Where readings that differ are decided."""
    return HTMLResponse(render(request, "adjudicate.html", me=me, **_about(page)))


@router.get("/curate", response_class=HTMLResponse)
def curation_page(request: Request, me: Curator, page: Page) -> Response:
    """Where a curator sees how the wave goes."""
    return HTMLResponse(render(request, "curate.html", me=me, **_about(page)))


def _about(page: Service) -> dict[str, object]:
    return {
        "guidelines": guidelines_of(page),
        "before_answer": page.settings.probabilities_before_answer,
        "has_logout": page.settings.login == "password",
    }


def _with_session(answer: Response, page: Service, secret: str) -> Response:
    """The answer with a session's cookie: "lax", since a log-in elsewhere comes back by another site's redirect."""
    lasts = int(page.lifetime.absolute.total_seconds())
    secure = page.settings.secure_cookies
    name = cookie_name(page)
    answer.set_cookie(name, secret, max_age=lasts, path="/", secure=secure, httponly=True, samesite="lax")
    return answer
