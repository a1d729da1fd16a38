"""How many streams of events may be open, and what each is told first: what is past, and whether some of it is gone."""

import json
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from enrollment.consumer.reader import order
from gateway.event_listener import EventListener
from gateway.event_stream import PAGE, Stream, StreamEntry

MAX_STREAMS: Final = 1000  # per process
MAX_OF_CLIENT: Final = 300  # of one client, per process; the others then have room

BEGINNING: Final = "0-0"


class Missed(NamedTuple):
    """Entries after this one are gone; what is kept goes on after `kept`."""

    after: str
    kept: str

    def text(self) -> str:
        """Return it as a server-sent event. It has no id: whoever resumes after it is told again."""
        data = {
            "code": "events_missed",
            "after": self.after,
            "detail": "Some events after this one may be gone before you read them. What is kept follows. If you keep "
            "a copy, load it anew, from `GET /students` for instance.",
        }
        return f"event: missed\ndata: {json.dumps(data)}\n\n"


def has_room(listener: EventListener, client: str) -> bool:
    """Tell whether one more stream may be open."""
    return listener.watching < MAX_STREAMS and listener.watching_of(client) < MAX_OF_CLIENT


async def past(stream: Stream, after: str) -> AsyncIterator[StreamEntry | Missed]:
    """Give the entries after another that are there already; where some are gone, that first, and then what is kept.

    Whether some are gone is asked after each page was read, so that nothing can be trimmed in between.
    """
    while True:
        entries = await stream.page(after)
        if order(after) > (0, 0) and await stream.has_gap(after):
            kept = BEGINNING if order(after) > order(await stream.end()) else after
            yield Missed(after, kept)
            if kept != after:
                entries = await stream.page(kept)
        for entry in entries:
            yield entry
        if len(entries) < PAGE:
            return
        after = entries[-1].id
