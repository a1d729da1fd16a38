"""The server process: uvicorn, with an end that does not wait for streams of events."""

import asyncio
import gc
import socket
from types import FrameType
from typing import Any, Final, cast

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.app import create_app
from gateway.authentication import is_loopback
from gateway.dependencies import Gateway
from worker import logging
from worker.settings import Settings, SettingsError

_GRACE: Final = 5  # seconds for answers under way, once the process was told to end
_KEEP_ALIVE: Final = 30  # seconds that a connection may be idle
_CONNECTIONS: Final = 2000
_HELD: Final = 65536  # bytes
_COLLECTED: Final = 10_000  # objects made until the collector looks; after Python's own 700, it looks at each request

log = structlog.get_logger(__name__)


class GatheringProtocol(H11Protocol):
    """HTTP by h11. The answers of one turn of the event loop leave together: each packet wakes up who reads, too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, on a transport that gathers what is written."""
        super().connection_made(cast(asyncio.Transport, GatheringTransport(transport, self.loop)))

    def eof_received(self) -> None:
        """Let what is answered leave: a client that sends no more is hung up on now."""
        cast(GatheringTransport, self.transport).flush()


class GatheringTransport:
    """A transport that writes what came in one turn of the event loop at its end, or once it is much."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold back until the end of the turn."""
        if data and not self._held:
            self._loop.call_soon(self.flush)
        self._held += data
        if len(self._held) > _HELD:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""

    def close(self) -> None:
        """Close after what was held back."""
        self.flush()
        self._transport.close()


class Server(uvicorn.Server):
    """Lets whoever waits go as soon as it is told to end; what they wait for comes later, or from another process."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # httptools refuses methods that it does not know, and drops the body beside an `Upgrade`.
                http=GatheringProtocol,
                host=host,
                port=port,
                log_config=None,
                access_log=False,  # it would name students; `gateway.middleware.request_log` does not
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE,
                limit_concurrency=_CONNECTIONS,
            )
        )
        self._gateway: Gateway = app.state.gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; in between two steps of the event loop, whose things only the loop may touch."""
        self.end()
        super().handle_exit(sig, frame)

    def end(self) -> None:
        """Begin to end: from a signal, or from another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gateway.listener.release)
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to end."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)


def run(host: str | None, port: int | None) -> None:
    """Serve until told to end. Raises SettingsError; without keys for any address but this machine's own."""
    settings = Settings.load()
    host, port = host or settings.gateway_host, settings.gateway_port if port is None else port
    logging.configure(settings.log_level, settings.log_format)
    if not settings.gateway_keys and not is_loopback(host):
        raise SettingsError(
            f"Without keys the gateway listens on this machine alone, not on {host}. "
            "Set ENROLLMENT_GATEWAY_KEYS; `enrollment gateway key` makes one."
        )
    server = Server(create_app(settings), host=host, port=port)
    if not settings.gateway_keys:
        log.warning("no_keys", listening="on loopback only, for everyone on this machine", see="enrollment gateway key")
    gc.set_threshold(_COLLECTED)
    gc.freeze()  # what is there now stays: to look through it all again and again would hold up requests
    server.run()


__all__ = ["Server", "run"]
