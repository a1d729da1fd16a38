"""TLS before a server that has none, as the Redis in the wheel: certificates of its own, and what unwraps it."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from tests.rabbitmq import RabbitMQ
from worker.local.redis import Redis

HANDSHAKE = b"\x16"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Secured:
    """A server behind TLS at localhost, and the files of a client."""

    password: str
    port: int
    ca: Path
    other_ca: Path  # of somebody else
    client: Path  # certificate and key

    def url(self, host: str = "localhost", **options: str | Path) -> str:
        query = urlencode({name: str(value) for name, value in options.items()})
        return f"rediss://:{self.password}@{host}:{self.port}/0?{query}"


@contextmanager
def secured(server: Redis | RabbitMQ, folder: Path, *, ask: bool = False) -> Iterator[Secured]:
    """Put TLS before a server; with `ask`, clients need a certificate as well."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if ask:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    with listening(relay(server.port), context) as port:
        yield Secured(server.password, port, folder / "ca.pem", folder / "other.pem", folder / "client.pem")


@contextmanager
def listening(serve: Serve, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on a port, which is given."""
    writers: set[asyncio.StreamWriter] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(OSError):
            await serve(reader, writer)
        writers.discard(writer)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(tracked, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(server, writers), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def relay(port: int, tls: int | None = None) -> Serve:
    """Pass on to a port, or to another one what begins as TLS does."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = b"" if tls is None else await reader.read(65_536)
        to = tls if tls is not None and first.startswith(HANDSHAKE) else port
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to)
        inner_writer.write(first)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    return serve


async def end(server: asyncio.Server, writers: Iterable[asyncio.StreamWriter] = ()) -> None:
    """Hang up, and let every task come to its own end: what is cancelled leaves its sockets open."""
    server.close()
    for writer in list(writers):
        writer.transport.abort()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


@pytest.fixture
def tls(session_redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Secured]:
    with secured(session_redis, tmp_path) as it:
        yield it


@pytest.fixture
def mutual_tls(session_redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Secured]:
    with secured(session_redis, tmp_path, ask=True) as it:
        yield it
