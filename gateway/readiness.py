"""Whether requests can be served: asked of every part, and at most once a second, however many want to know."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Literal, NamedTuple

from gateway.database import Database
from gateway.event_listener import EventListener
from gateway.producer import CommandProducer
from models.queries import checks

_KEPT: Final = 1.0  # seconds that an answer is good for
_PATIENCE: Final = 2.0  # seconds for each part to answer

Part = Literal["ok", "away"]


class Parts(NamedTuple):
    """What requests need, and whether it answers."""

    database: Part
    broker: Part
    events: Part

    @property
    def away(self) -> list[str]:
        """Those that do not answer."""
        return [name for name, part in self._asdict().items() if part == "away"]


class Readiness:
    """Asks with a connection and a thread of its own: whoever asks all day takes none from reads and writes."""

    def __init__(
        self,
        read: Database,
        producer: CommandProducer,
        listener: EventListener,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """`read` is closed by whoever made it, and used by nobody else."""
        self._read = read
        self._producer = producer
        self._listener = listener
        self._now = now
        self._asking = asyncio.Lock()
        self._found: Parts | None = None
        self._at = 0.0

    async def parts(self) -> Parts:
        """Return which parts answer, or did a moment ago."""
        async with self._asking:
            if self._found is None or self._now() >= self._at + _KEPT:
                database, broker, events = await asyncio.gather(
                    _part(self._read(checks.clock)), _part(self._producer.check()), _part(self._listener.stream.ping())
                )
                self._found = Parts(database, broker, events if self._listener.live else "away")
                self._at = self._now()
            return self._found


async def _part(question: Awaitable[object]) -> Part:
    try:
        await asyncio.wait_for(question, _PATIENCE)
    except Exception:  # noqa: BLE001 - whatever it is, it is no answer
        return "away"
    return "ok"
