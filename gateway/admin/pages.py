"""How pages are made: templates, what they may call, and what every answer carries."""

import hashlib
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from sqlalchemy.exc import DBAPIError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.admin import template_filters
from gateway.admin.errors import LoginNeeded, PageError, page_error_of
from gateway.admin.session import keep, policy_of, session_of
from gateway.authentication import Session
from models.db_errors import describe

log = structlog.get_logger(__name__)

PAGE: Final = 50  # rows of a list

SearchText = Annotated[str, Query(max_length=200)]
After = Annotated[int | None, Query()]

_FOLDER: Final = Path(__file__).parents[1]
_STATIC: Final = {
    "admin.css": "text/css; charset=utf-8",
    "admin.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx-sse.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, in no frame.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class PageRoute(APIRoute):
    """A route whose errors are pages too, and whose answers carry what keeps them safe."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except LoginNeeded:
                response = _to_login(request)
            except Exception as error:  # noqa: BLE001 - all of them are told as pages
                response = error_page(request, error)
            _make_safe(response)
            new = getattr(request.state, "new_session", None)
            if new is not None:
                keep(request, response, new)
            return response

        return answer


def page_router(*, public: bool = False) -> APIRouter:
    """Return a router for pages; they are for those who are logged in, unless they are public."""
    return APIRouter(
        prefix="/admin",
        route_class=PageRoute,
        dependencies=[] if public else [Depends(session_of)],
        include_in_schema=False,
        default_response_class=Response,
    )


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page."""
    session: Session | None = getattr(request.state, "session", None)
    token = escape(session.csrf) if session else ""
    section = request.url.path.removeprefix("/admin").lstrip("/").partition("/")[0]
    content = (
        _templates()
        .get_template(template)
        .render(
            session=session,
            with_login=policy_of(request).with_login,
            here=section,
            csrf_field=lambda: Markup('<input type="hidden" name="csrf" value="{}">').format(token),
            **values,
        )
    )
    return HTMLResponse(content, status)


def fragment(template: str, **values: Any) -> str:
    """Return a piece of a page."""
    return _templates().get_template(template).render(**values)


def is_htmx(request: Request) -> bool:
    """Tell whether a piece of a page is asked for."""
    return "hx-request" in request.headers


def links(request: Request, after: int | None, following: int | None, **said: str) -> tuple[str | None, str | None]:
    """Return the addresses of the first page, where this is not it, and of the next one, where there is one."""
    path, query = request.url.path, {name: value for name, value in said.items() if value}
    first = f"{path}?{urlencode(query)}" if query else path
    return (
        None if after is None else first,
        None if following is None else f"{path}?{urlencode({**query, 'after': following})}",
    )


def see(location: str) -> RedirectResponse:
    """Return an answer that shows another page."""
    return RedirectResponse(location, 303)


@cache
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Return what browsers get: content, media type and a digest that is part of the address."""
    found = {}
    for name, media_type in _STATIC.items():
        content = (_FOLDER / "static" / name).read_bytes()
        found[name] = content, media_type, hashlib.sha256(content).hexdigest()[:12]
    return found


def _static(name: str) -> str:
    return f"/admin/static/{static_files()[name][2]}/{name}"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(static=_static, number=template_filters.number, span=template_filters.span)
    environment.filters.update(template_filters.FILTERS)
    return environment


def _to_login(request: Request) -> Response:
    if is_htmx(request):
        at = urlsplit(request.headers.get("hx-current-url", "")).path
        return Response(status_code=401, headers={"HX-Redirect": f"/admin/login?next={quote(at)}"})
    if "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=401)
    at = request.url.path if request.method == "GET" else ""
    return see(f"/admin/login?next={quote(at)}" if at not in ("", "/admin") else "/admin/login")


def error_page(request: Request, error: Exception) -> Response:
    """Return an error as a person reads it."""
    try:
        page_error = page_error_of(request, error)
    except Exception as unforeseen:
        hidden = isinstance(unforeseen, DBAPIError)  # in full it would show the values of the statement
        log.exception("page_failed", error=describe(unforeseen), exc_info=not hidden)
        page_error = PageError(500, "That went wrong", "Nobody foresaw this. What happened is in the gateway's log.")
    template = "_error.html" if is_htmx(request) else "error.html"
    response = render(request, template, status=page_error.status, title=page_error.title, message=page_error.message)
    response.headers.update(page_error.headers)
    _make_safe(response)
    return response


def _make_safe(response: Response) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
