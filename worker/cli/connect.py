"""The servers that a verb talks to, opened for as long as it takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Connection

    from enrollment.client import Client


@contextmanager
def database() -> "Iterator[Connection]":
    """Give a connection; what was written is committed at the end, unless that is an error."""
    from models.engine import make_engine
    from worker.settings import Settings

    url = Settings.load().require_database_url()
    engine = make_engine(url, application_name="enrollment command line")
    try:
        with engine.connect() as connection:
            yield connection
            connection.commit()
    finally:
        engine.dispose()


@contextmanager
def lookup() -> "Iterator[Connection]":
    """Give a connection for lookups: to a standby where there is one that is up to date, else to the primary."""
    from models.engine import make_engine
    from models.standby import Standby
    from worker.settings import Settings

    settings = Settings.load()
    name = "enrollment command line"
    primary = make_engine(settings.require_database_url(), application_name=name)
    primary = primary.execution_options(isolation_level="AUTOCOMMIT")
    address = settings.read_address()
    standby = address and Standby.beside(primary, address, application_name=name)
    try:
        with (standby and standby.connect()) or primary.connect() as connection:
            yield connection
    finally:
        if standby:
            standby.close()
        primary.dispose()


@contextmanager
def stream() -> "Iterator[tuple[Redis, str]]":
    """Give a client of the Redis that has the event stream, and the stream's key."""
    from enrollment.consumer.reader import WAIT, connect
    from worker.settings import Settings

    settings = Settings.load()
    with connect(settings.require_events_url(), WAIT) as client:
        yield client, settings.events_stream


@contextmanager
def client_of_broker(*, patience: float = 10) -> "Iterator[Client]":
    """Give what sends commands; it waits `patience` seconds for a broker that is away."""
    from enrollment.client import Client
    from worker.settings import Settings

    settings = Settings.load()
    options = settings.transport_options()
    with Client(settings.require_broker_url(), patience=patience, transport_options=options) as client:
        yield client
