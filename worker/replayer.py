"""Replaying dead letters from outside a worker: the database they are kept in, and the queue they go back to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from enrollment.client import Client
from enrollment.commands import Command
from models.engine import make_engine
from tasks.replay import Replayed, replay
from worker.settings import Settings


@contextmanager
def replayer(by: str) -> Iterator[Callable[[int, str | None], Replayed]]:
    """Give a function that replays one dead letter for `by`, with another payload where one is given.

    It raises UnknownDeadLetter, CannotReplay and BrokerAway; the dead letter is then as it was.
    """
    settings = Settings.load()
    engine = make_engine(settings.require_database_url(), application_name="enrollment replay")
    try:
        with Client(settings.require_broker_url(), transport_options=settings.transport_options()) as client:
            yield partial(replay, engine, partial(send_all, client), by=by)
    finally:
        engine.dispose()


def send_all(client: Client, commands: Sequence[Command]) -> None:
    """Send commands, several in few messages. Raises BrokerAway."""
    if len(commands) == 1:
        client.send(commands[0])
        return
    with client.bulk() as bulk:
        for command in commands:
            bulk.send(command)
