"""Around a request: its trace, which goes on in the commands that it sends."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.request_log import is_endless, method_of, route_of
from worker import tracing


class TracingMiddleware:
    """ASGI middleware. Spans name routes by their template: no ids."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and trace what has an end."""
        if scope["type"] != "http" or is_endless(scope["path"]):
            await self._app(scope, receive, send)
            return
        with tracing.serving(Headers(scope=scope), method_of(scope)) as span:
            scope.setdefault("state", {})["trace_id"] = tracing.trace_id(span)
            await self._app(scope, receive, send)
            if span is not None:
                span.update_name(f"{method_of(scope)} {route_of(scope)}")
