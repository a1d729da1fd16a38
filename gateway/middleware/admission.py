"""Before any route: who asks, how often, how much, and in what form."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.authentication import Authenticator, network_of
from gateway.problems import Problem
from gateway.rate_limit import Buckets
from worker.credentials import Scope as Permission

OPEN: Final = ("/healthz", "/readyz", "/openapi.json", "/", "/docs")
DOCS: Final = "/docs/"  # files of the viewer
ADMIN: Final = "/admin"  # has its own login, and forms
UPLOAD: Final = "/admin/imports"  # takes files of any size
STATIC: Final = "/admin/static/"
_READING: Final = ("GET", "HEAD", "OPTIONS")
_BODY_SECONDS: Final = 10.0  # for a request to arrive


class AdmissionMiddleware:
    """ASGI middleware. What it lets through has `request.state.client` and a body that is there already."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        buckets: Buckets,
        max_body: int,
        refusal: Callable[[Request, Problem], Response],
    ) -> None:
        self._app = app
        self._refusal = refusal
        self._authenticator = authenticator
        self._buckets = buckets
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            if _is_upload(scope):  # goes to disk as it comes, once the page knows who sends it
                await self._app(scope, receive, send)
                return
            body = await self._body(scope, receive)
        except Problem as problem:
            await self._refusal(Request(scope), problem)(scope, receive, send)
            return
        await self._app(scope, replaying(body, receive), send)

    def _admit(self, scope: Scope) -> None:
        """Raises a Problem: 401, 403, 429."""
        headers = Headers(scope=scope)
        address = scope["client"][0] if scope.get("client") else None
        network, path = network_of(address or ""), scope["path"]
        if path in OPEN or path.startswith(DOCS):
            self._buckets.take(f"open {network}")
            return
        if is_admin(path):
            # Styles have a bucket of their own, so that the page that says "too many requests" has one.
            self._buckets.take(f"{'static' if path.startswith(STATIC) else 'address'} {network}")
            if self._authenticator.local_only:
                self._authenticator.client_of(headers, address)
            return
        try:
            client = self._authenticator.client_of(headers, address)
        except Problem:
            self._buckets.take(f"address {network}")  # who guesses keys is slowed down
            raise
        self._buckets.take(f"client {client.name}")
        client.require(Permission.READ if scope["method"] in _READING else Permission.WRITE)
        scope.setdefault("state", {})["client"] = client

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body. Raises a Problem: 408, 413, 415."""
        headers = Headers(scope=scope)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await self._read(headers, receive)
        except TimeoutError:
            raise Problem(408, "request_timeout", f"The body did not arrive in {_BODY_SECONDS:g} s.") from None
        if body and not is_admin(scope["path"]):
            _require_json(headers)
        return body

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "bad_request", "The body was cut off.")
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "content_too_large",
            f"A request may have {self._max_body} bytes. Send fewer courses at a time.",
            headers={"Connection": "close"},
        )


def is_admin(path: str) -> bool:
    """Tell whether this is the admin page's."""
    return path == ADMIN or path.startswith(f"{ADMIN}/")


def _is_upload(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and scope["path"] == UPLOAD)


def _require_json(headers: Headers) -> None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(
            415,
            "unsupported_media_type",
            "The body must be JSON: send it with `Content-Type: application/json`.",
            headers={"Accept": "application/json"},
        )


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body once, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
