"""Locks of others, and what comes of the commands that wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Engine, text

from worker.service import Service


@contextmanager
def held(engine: Engine, statement: str, **parameters: Any) -> Iterator[None]:
    """Hold what a statement locks in an open transaction; nothing of it stays."""
    with engine.connect() as connection:
        connection.execute(text(statement), parameters)
        yield
        connection.rollback()


def release_all(service: Service) -> None:
    """Release until nothing waits any more."""
    end = monotonic() + 30
    while service.release() is not None:
        assert monotonic() < end, "something waits still"
        sleep(0.01)
