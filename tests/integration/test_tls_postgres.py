"""PostgreSQL behind TLS that asks for a certificate of the client. The tests' own has no TLS: it is unwrapped."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from enrollment.addresses import AddressError
from models.address import database_url
from models.db_errors import describe
from models.engine import make_engine
from tests.tls import end, relay
from worker.local.postgres import Postgres

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # PostgreSQL manual, 55.7


@dataclass(frozen=True)
class Secured:
    """An address at localhost, and the folder with the files of clients."""

    url: str
    folder: Path

    def with_(self, **files: str) -> str:
        said = {"sslrootcert": "ca.pem", "sslcert": "client.pem", "sslkey": "client.pem", **files}
        paths = {name: str(self.folder / file) for name, file in said.items()}
        return f"{self.url}?{urlencode({'sslmode': 'verify-full', **paths})}"


@pytest.fixture
def secured(session_postgres: Postgres, tmp_path: Path) -> Iterator[Secured]:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, issuer in (("ca", authority), ("other", stranger)):
        issuer.cert_pem.write_to_path(tmp_path / f"{name}.pem")
    for name, issuer in (("client", authority), ("stranger", stranger)):
        issuer.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
        (tmp_path / f"{name}.pem").chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
        writer.write(b"S")
        await writer.start_tls(context)
        await relay(session_postgres.port)(reader, writer)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a client that is refused
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    host = f"localhost:{server.sockets[0].getsockname()[1]}"
    yield Secured(session_postgres.url.replace(f"127.0.0.1:{session_postgres.port}", host), tmp_path)
    asyncio.run_coroutine_threadsafe(end(server), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_certificate_of_the_client_is_shown_to_postgresql(secured: Secured) -> None:
    engine = make_engine(database_url(secured.with_(), "X"), application_name="test")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"sslrootcert": "other.pem"}, "certificate verify failed"),
        ({"sslcert": "stranger.pem", "sslkey": "stranger.pem"}, "SSL error|server closed the connection"),
        ({"sslcert": "none.pem", "sslkey": "none.pem"}, "SSL error|server closed the connection"),
    ],
)
def test_a_wrong_certificate_is_refused_in_one_sentence(secured: Secured, files: dict[str, str], sentence: str) -> None:
    engine = make_engine(database_url(secured.with_(**files), "X"), application_name="test")
    with pytest.raises(OperationalError, match=sentence) as it:
        engine.connect()
    assert "\n" not in describe(it.value)


def test_an_authority_that_is_not_there_is_an_error_before_anything_connects(secured: Secured) -> None:
    with pytest.raises(AddressError, match=r"^X names certificates[^\n]*none\.pem: No such file"):
        database_url(secured.with_(sslrootcert="none.pem"), "X")
