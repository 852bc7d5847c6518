"""Who may: the session behind a request, its role, and that the request comes from our own page."""

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from scanloop.errors import RoleError
from scanloop.labelling.app.refusals import Refused
from scanloop.labelling.app.service import Service, service_of
from scanloop.labelling.readers import ROLES
from scanloop.labelling.sessions import SignedIn

Page = Annotated[Service, Depends(service_of)]
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


def cookie_name(service: Service) -> str:
    """Name of the session's cookie; with https browsers take one of this prefix from this host over https alone."""
    return "__Host-session" if service.settings.secure_cookies else "session"


def client_address(request: Request, service: Service) -> str:
    """Address of whoever asks: the peer's, or what a trusted proxy says of the last one before it."""
    peer = request.client.host if request.client else ""
    if not is_trusted(peer, service):
        return peer
    chain = ",".join(request.headers.getlist("x-forwarded-for"))  # some proxies add a line below a browser's own
    for said in reversed(chain.split(",")):
        try:
            address = str(ip_address(said.strip()))
        except ValueError:
            break
        if not is_trusted(address, service):
            return address
    return peer


def is_trusted(address: str, service: Service) -> bool:
    """Whether an address is one of the configured proxies."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in service.settings.trusted_proxies)


def name_of_proxy(request: Request, service: Service) -> str | None:
    """The reader that a trusted proxy names; None where nobody is named.

    Raises:
        Refused: Somebody else than a trusted proxy asks; what they say of themselves is not looked at.
    """
    peer = request.client.host if request.client else ""
    if not is_trusted(peer, service):
        raise Refused(403, "proxy", "this page is open behind its proxy alone")
    named = request.headers.getlist(service.settings.proxy_header)
    return named[0] if len(named) == 1 and named[0] else None


def check_origin(request: Request, service: Service) -> None:
    """Return if what changes something was sent by our own page, as far as the browser tells.

    Raises:
        Refused: It was sent by another site's.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        raise Refused(403, "origin", "this request comes from another site's page")
    origin = request.headers.get("origin")
    if origin is None or (origin == "null" and site is not None):  # what forms send under "no-referrer"
        return
    ours = service.settings.origin
    host = request.headers.get("host", "")
    if (origin != ours) if ours is not None else (origin not in (f"http://{host}", f"https://{host}")):
        raise Refused(403, "origin", "this request comes from another site's page")


def session_of(request: Request, service: Page) -> SignedIn:
    """The session of a request that is within its limits, sent by our page where it changes something.

    Raises:
        Refused: There is no session, it asks too often, or the request was not made by our page.
    """
    secret = request.cookies.get(cookie_name(service), "")
    return _allowed(request, service, service.sessions.lately(secret) or service.sessions.ask(secret))


def _allowed(request: Request, service: Service, who: SignedIn | None) -> SignedIn:
    if service.settings.login == "proxy":
        named = name_of_proxy(request, service)
        who = who if who is not None and who.reader == named else None
    if who is None:
        raise Refused(401, "login", "log in first")
    if wait := service.requests.wait_seconds(who.key):
        raise Refused(429, "too_often", "too many requests", {"Retry-After": str(wait)})
    if request.method in UNSAFE:
        check_origin(request, service)
    return who


async def _csrf_sent(request: Request) -> str:
    sent = request.headers.get("x-csrf-token")
    if sent is None and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        field = (await request.form()).get("csrf")
        sent = field if isinstance(field, str) else ""
    return sent or ""


async def signed_in(request: Request, service: Page) -> SignedIn:
    """Whoever is logged in; the request carries the session's token where it changes something.

    Raises:
        Refused: They are not, or the token is missing or wrong.
    """
    secret = request.cookies.get(cookie_name(service), "")
    who = service.sessions.lately(secret) or await run_in_threadpool(service.sessions.ask, secret)
    who = _allowed(request, service, who)
    if request.method in UNSAFE:
        sent = await _csrf_sent(request)
        if not hmac.compare_digest(sent.encode("utf-8", "replace"), who.csrf.encode()):
            raise Refused(403, "csrf", "the page is of an older session; load it again")
    return who


Me = Annotated[SignedIn, Depends(signed_in)]


def at_least(role: str) -> Callable[[SignedIn], Awaitable[SignedIn]]:
    """A dependency: whoever is logged in, whose role includes this one."""

    async def guarded(me: Me) -> SignedIn:
        if ROLES.index(me.role) < ROLES.index(role):
            raise RoleError(f"this needs the role {role}, and yours is {me.role}; a curator changes roles")
        return me

    return guarded


Adjudicator = Annotated[SignedIn, Depends(at_least("adjudicator"))]
Curator = Annotated[SignedIn, Depends(at_least("curator"))]
