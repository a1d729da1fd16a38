"""Right before FastAPI: valid writes pass over its layers, which take longer than what is done for a command."""

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.admission import replaying
from gateway.problems import Problem
from gateway.schemas.requests import BodyRoute


class WritesMiddleware:
    """ASGI middleware, for requests whose body is there. What is no valid write of `routes` is FastAPI's to answer."""

    def __init__(
        self, app: ASGIApp, *, routes: Sequence[Any], refusal: Callable[[Request, Exception], Response]
    ) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, BodyRoute)]
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        for route in self._routes if scope["type"] == "http" else ():
            if scope["method"] in (route.methods or ()) and (found := route.path_regex.match(scope["path"])):
                scope["route"], path = route, found.groupdict()
                break
        else:
            await self._app(scope, receive, send)
            return
        request, body = Request(scope), (await receive())["body"]
        try:
            arguments = route.arguments(path, request.headers, body)
        except (ValueError, RecursionError, Problem):  # FastAPI says what is wrong with which field
            await self._app(scope, replaying(body, receive), send)
            return
        try:
            response: Response = await route.endpoint(request, **arguments)
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is raised again
            response = self._refusal(request, error)
        await response(scope, receive, send)
