"""TLS before a Redis that has none (the one in the wheel): certificates of the test's own, and what unwraps them."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from worker.local.redis import Redis


@dataclass(frozen=True)
class Secured:
    """A Redis behind TLS at localhost, and the files of a client."""

    password: str
    port: int
    ca: Path
    other_ca: Path  # of somebody else
    client: Path  # certificate and key

    def url(self, host: str = "localhost", **options: str | Path) -> str:
        query = urlencode({name: str(value) for name, value in options.items()})
        return f"rediss://:{self.password}@{host}:{self.port}/0?{query}"


@contextmanager
def secured(redis: Redis, folder: Path, *, ask: bool = False) -> Iterator[Secured]:
    """Put TLS before `redis`; with `ask`, clients need a certificate as well."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if ask:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(relay(redis.port), "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    try:
        yield Secured(redis.password, port, folder / "ca.pem", folder / "other.pem", folder / "client.pem")
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def relay(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    return serve


async def end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def tls(session_redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Secured]:
    with secured(session_redis, tmp_path) as it:
        yield it


@pytest.fixture
def mutual_tls(session_redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Secured]:
    with secured(session_redis, tmp_path, ask=True) as it:
        yield it
