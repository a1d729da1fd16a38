"""Around everything: each request is timed, counted and logged; what nobody foresaw becomes a problem."""

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.metrics import Metrics
from gateway.problems import Problem
from models.db_errors import describe

_UNROUTED: Final = "none"
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"),)

log = structlog.get_logger(__name__)


class RequestLogMiddleware:
    """ASGI middleware. The log names routes by their template and clients by their name: no ids, no addresses."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and tell what came of it when the answer has begun; who asked does not wait for that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, method = perf_counter(), method_of(scope)
        if method == "HEAD" and not is_endless(scope["path"]):
            scope = {**scope, "method": "GET"}  # the same answer; the server leaves the body out (RFC 9110, 9.3.2)
        answered, untold = False, None  # the status and the seconds that are still to be recorded

        async def observed(message: Message) -> None:
            nonlocal answered, untold
            if message["type"] == "http.response.start":
                answered, untold = True, (int(message["status"]), perf_counter() - began)
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                await send(message)
                return
            await send(message)
            if untold is not None:
                told, untold = untold, None
                asyncio.get_running_loop().call_soon(self._record, method, scope, *told)  # the answer leaves first

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            hidden = isinstance(error, DBAPIError)  # in full it would show the values of the statement
            log.exception("request_failed", route=route_of(scope), error=describe(error), exc_info=not hidden)
            if not answered:
                problem = Problem(500, "internal_error", "This was not foreseen. It is in the gateway's log.")
                await problem.response()(scope, receive, observed)
        finally:
            if untold is not None:  # the client left, or the answer broke off before its first byte
                self._record(method, scope, *untold)

    def _record(self, method: str, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        state = scope.get("state", {})
        client = getattr(state.get("client"), "name", None)
        self._metrics.answered(method, route, status, seconds)
        log.info(
            "request",
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            client=client,
            **_trace(state),
        )


def _trace(state: Mapping[str, Any]) -> dict[str, str]:
    trace_id = state.get("trace_id")
    return {"trace_id": trace_id} if trace_id else {}


def is_endless(path: str) -> bool:
    """Tell whether this is a stream of events, of which there is no beginning without the rest."""
    return path in ("/events", "/admin/events/stream")


def route_of(scope: Scope) -> str:
    """Return the template, as `/students/{student_id}`."""
    return getattr(scope.get("route"), "path", _UNROUTED)


def method_of(scope: Scope) -> str:
    """Return the method, where it is one of those that exist: a name that anyone made up is no label."""
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
