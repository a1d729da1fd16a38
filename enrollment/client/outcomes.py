"""What came of a command, as a producer sees it: its result event, waited for on the stream."""

import time
from typing import Any, Final, NamedTuple
from uuid import UUID

from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TooLate

from enrollment.client.errors import NoOutcomeYet
from enrollment.consumer.reader import FIELD, PAGE, WAIT, connect, entries_of, entry_of
from enrollment.events import Event
from enrollment.names import STREAM
from enrollment.redis_client import outages

LOOK_BACK: Final = 2000  # milliseconds before its making from which a command's event is looked for
PAUSE: Final = 0.2  # seconds between attempts while Redis is away
_TIMED: Final = 7  # the version of UUIDs that begin with the time


class Outcomes:
    """Finds the events of commands on the stream. For one thread at a time.

    Nothing need be prepared before a command is sent: an id of version 7 tells when it was made, and the stream is read
    from there on; for any other id it is read from the making of this object on.
    """

    def __init__(self, events_url: str, *, stream: str = STREAM) -> None:
        """Read `stream`. Connects at the first question."""
        self._url = events_url
        self._stream = stream
        self._made = int(time.time() * 1000)
        self._client: Redis | None = None
        self._ahead = 0  # milliseconds by which Redis' clock is ahead of ours

    def wait_for(self, command_id: UUID, seconds: float, *, final: bool = False) -> Event:
        """Return the event of a command; with `final` not the one that says it waits. Raises NoOutcomeYet.

        Waits for Redis, too.
        """
        deadline = time.monotonic() + seconds
        position: str | None = None
        while True:
            away: Exception | None = None
            try:
                client = self._connect()
                position = position or self._before(command_id)
                with outages(client):
                    event, position = _look(client, self._stream, position, deadline, _Sought(command_id, final))
                if event is not None:
                    return event
            except AuthenticationError:  # redis-py calls it a lost connection; waiting does not help
                raise
            except (Disconnected, TooLate) as error:
                away = error
                self.close()
                time.sleep(PAUSE)
            if time.monotonic() >= deadline:
                raise NoOutcomeYet(command_id, seconds) from away

    def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Redis:
        if self._client is None:
            self._client = connect(self._url, WAIT)
            now: Any = self._client.time()
            self._ahead = now[0] * 1000 + now[1] // 1000 - int(time.time() * 1000)
        return self._client

    def _before(self, command_id: UUID) -> str:
        """Return a position on the stream from before the command's event."""
        made = command_id.int >> 80 if command_id.version == _TIMED else self._made
        return f"{max(0, made + self._ahead - LOOK_BACK)}-0"


class _Sought(NamedTuple):
    command_id: UUID
    final: bool


def _look(client: Redis, stream: str, position: str, deadline: float, sought: _Sought) -> tuple[Event | None, str]:
    """Read on by a page; return the event if it is there, and the position behind what was read."""
    block = max(1, int(min(WAIT, deadline - time.monotonic()) * 1000))  # 0 would be for ever
    reply: Any = client.xread({stream: position}, count=PAGE, block=block)
    named = str(sought.command_id)
    for entry_id, fields in entries_of(reply):
        position = entry_id
        if named in fields.get(FIELD, ""):  # only what names the id is worth decoding
            event = entry_of(entry_id, fields).event
            if event is None or event.id != sought.command_id:
                continue
            if not (sought.final and event.is_waiting):
                return event, position
    return None, position
