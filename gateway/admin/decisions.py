"""What is done about dead letters: the use case, with connections of its own for as long as it takes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from anyio import to_thread
from sqlalchemy import Engine

from enrollment.client import Client
from gateway.producer import PATIENCE
from models import dead_letters
from models.engine import make_engine
from tasks.replay import CannotReplay, replay
from worker.replayer import send_all
from worker.settings import Settings

__all__ = [
    "AT_ONCE",
    "CannotReplay",
    "Decided",
    "client",
    "database",
    "discard",
    "replay_many",
    "replay_oldest",
    "replay_one",
]

AT_ONCE: Final = 500  # replayed by one request; each is a transaction of its own


@dataclass(slots=True)
class Decided:
    """What came of a decision."""

    replayed: int = 0
    discarded: int = 0
    nothing: bool = False
    refused: list[tuple[int, str]] = field(default_factory=list)  # the id, and why it cannot be replayed


async def replay_one(settings: Settings, letter_id: int, payload: str | None, by: str) -> None:
    """Send a dead letter again, corrected where `payload` is given. Raises CannotReplay, UnknownDeadLetter."""
    await to_thread.run_sync(_replay_one, settings, letter_id, payload, by)


async def replay_many(settings: Settings, letter_ids: Iterable[int], by: str) -> Decided:
    """Send dead letters again as they are, AT_ONCE at most."""
    return await to_thread.run_sync(_replay_many, settings, list(letter_ids)[:AT_ONCE], by)


async def replay_oldest(settings: Settings, code: str, by: str) -> Decided:
    """Send the oldest dead letters of one code again, AT_ONCE at most."""
    return await to_thread.run_sync(_replay_oldest, settings, code, by)


async def discard(settings: Settings, letter_ids: Iterable[int], by: str) -> Decided:
    """Note that nothing is to come of these."""
    return await to_thread.run_sync(_discard, settings, list(letter_ids), by)


def client(settings: Settings) -> Client:
    """Return what sends commands."""
    options = settings.transport_options()
    return Client(settings.require_broker_url(), patience=PATIENCE, transport_options=options)


def _replay_one(settings: Settings, letter_id: int, payload: str | None, by: str) -> None:
    with database(settings) as engine, client(settings) as sender:
        replay(engine, partial(send_all, sender), letter_id, payload, by=by)


def _replay_many(settings: Settings, letter_ids: Sequence[int], by: str) -> Decided:
    decided = Decided(nothing=not letter_ids)
    with database(settings) as engine, client(settings) as sender:
        for letter_id in letter_ids:
            try:
                replay(engine, partial(send_all, sender), letter_id, by=by)
                decided.replayed += 1
            except CannotReplay as error:
                decided.refused.append((letter_id, error.reason))
    return decided


def _replay_oldest(settings: Settings, code: str, by: str) -> Decided:
    with database(settings) as engine, engine.connect() as connection:
        ids = dead_letters.open_ids(connection, code=code)
    return _replay_many(settings, ids[:AT_ONCE], by)


def _discard(settings: Settings, letter_ids: Sequence[int], by: str) -> Decided:
    with database(settings) as engine, engine.begin() as connection:
        return Decided(discarded=dead_letters.discard(connection, letter_ids, by=by), nothing=not letter_ids)


@contextmanager
def database(settings: Settings) -> Iterator[Engine]:
    """Give an engine with transactions; the gateway's reader has none."""
    engine = make_engine(settings.require_database_url(), application_name="enrollment admin")
    try:
        yield engine
    finally:
        engine.dispose()
