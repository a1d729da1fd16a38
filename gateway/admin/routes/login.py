"""The way in and out, what browsers get besides pages, and the page for every address that is none."""

import hmac
import re
import secrets
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from starlette.responses import Response

from gateway.admin.errors import PageError, page_not_found
from gateway.admin.pages import page_router, render, see, static_files
from gateway.admin.session import (
    Who,
    address_of,
    cookie_name,
    keep,
    policy_of,
    posted,
    require_same_site,
    set_cookie,
    text_of,
)

router = page_router(public=True)
nowhere = page_router()

_LOGIN_COOKIE: Final = "enrollment_login"
_LOGIN_SECONDS: Final = 3600  # a login page may lie open so long
_INSIDE: Final = re.compile(r"/admin(/[A-Za-z0-9_-]+)*", re.ASCII)
_WRONG: Final = "The name or the password is wrong."


@router.get("/login")
async def show_login(request: Request, next_: Annotated[str, Query(alias="next")] = "") -> Response:
    """Ask who it is."""
    if not policy_of(request).with_login:
        return see("/admin")
    return _login_page(request, at=next_)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Let someone in who knows a password."""
    require_same_site(request)
    form = await request.form(max_files=0, max_fields=10)
    sent, own = text_of(form, "login_csrf"), request.cookies.get(cookie_name(request, _LOGIN_COOKIE), "")
    if not sent or not hmac.compare_digest(sent.encode(), own.encode()):
        raise PageError(403, "This form is too old", "Open the login page again; it needs cookies.")
    name, at = text_of(form, "name"), text_of(form, "next")
    session = await policy_of(request).log_in(address_of(request), name, text_of(form, "password"))
    if session is None:
        return _login_page(request, at=at, name=name, wrong=_WRONG, status=403)
    response = see(at if _INSIDE.fullmatch(at) else "/admin")
    keep(request, response, session)
    set_cookie(request, response, _LOGIN_COOKIE, "", 0)
    return response


@nowhere.post("/logout", dependencies=[Depends(posted)])
async def log_out(request: Request, who: Who) -> Response:
    """Forget who it is."""
    await policy_of(request).log_out(who)
    response = see("/admin/login")
    set_cookie(request, response, "enrollment_session", "", 0)
    return response


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """Return a style, script or image. The digest is part of the address, so it may be kept for ever."""
    found = static_files().get(name)
    if found is None or found[2] != digest:
        raise page_not_found()
    content, media_type, _ = found
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, headers=headers, media_type=media_type)


@nowhere.get("/{path:path}")
async def nothing() -> Response:
    """Say that there is no such page."""
    raise page_not_found()


def _login_page(request: Request, *, at: str, name: str = "", wrong: str = "", status: int = 200) -> Response:
    token = secrets.token_urlsafe(24)
    response = render(request, "login.html", status=status, token=token, next=at, name=name, wrong=wrong)
    set_cookie(request, response, _LOGIN_COOKIE, token, _LOGIN_SECONDS)
    return response
