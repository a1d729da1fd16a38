"""The result events, live."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response, StreamingResponse

from enrollment.consumer.reader import order
from gateway.dependencies import Held, Who
from gateway.event_listener import EventListener, Watcher
from gateway.openapi import EVENTS
from gateway.problems import Problem
from gateway.sse import MAX_OF_CLIENT, Missed, has_room, past

router = APIRouter(tags=["events"])

HEARTBEAT: Final = 15.0  # seconds; proxies close what is silent for a minute
_ID: Final = re.compile(r"(0|[1-9]\d{0,18})(-(0|[1-9]\d{0,18}))?", re.ASCII)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second is for nginx

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=f"^{_ID.pattern}$",
        description="The id of the last event that the client has; `0` for all that are kept. Default: from now on.",
    ),
]


async def place_of(gateway: Held, client: Who) -> AsyncIterator[None]:
    """Count the stream as open until its answer is over. Raises a Problem when there are too many."""
    if not has_room(gateway.listener, client.name):
        raise Problem(
            503,
            "unavailable",
            f"Too many streams of events are open; a client may have {MAX_OF_CLIENT}. Close some, or try again later.",
            headers={"Retry-After": "30"},
        )
    with gateway.listener.counted(client.name):
        yield


@router.get("/events", response_class=StreamingResponse, responses=EVENTS, dependencies=[Depends(place_of)])
async def watch_events(gateway: Held, last_event_id: LastEventId = None) -> Response:
    """Every result event as it happens, as server-sent events: `data` is the CloudEvent, `id` resumes after it.

    An event named `missed` comes first where events after `Last-Event-ID` may no longer be kept.
    """
    if last_event_id is not None:
        await gateway.listener.stream.ping()  # raises what is answered with 503, while that can still be said
    stream = _stream(gateway.listener, last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers=_HEADERS)


async def _stream(listener: EventListener, last: str | None) -> AsyncIterator[str]:
    """Give what is past, then what comes. The pause after each shows that a client has left before more is written."""
    told: Missed | None = None
    yield ": the result events, from here on\n\n"
    if last is not None:
        async for it in past(listener.stream, last):
            told, last = (it, it.kept) if isinstance(it, Missed) else (told, it.id)
            yield it.text()
            await asyncio.sleep(0)
    with listener.watched() as watcher:
        if last is not None:  # what came between the last page and now
            async for it in past(listener.stream, last):
                if it != told:
                    last = it.kept if isinstance(it, Missed) else it.id
                    yield it.text()
                    await asyncio.sleep(0)
        async for text in _live(watcher, order(last or "0")):
            yield text
            await asyncio.sleep(0)


async def _live(watcher: Watcher, sent: tuple[int, int]) -> AsyncIterator[str]:
    """Give what comes after what was sent, until the watcher is closed."""
    while True:
        try:
            entry_or_end = await watcher.get(HEARTBEAT)
        except TimeoutError:
            yield ": still here\n\n"
            continue
        if entry_or_end is None:
            return
        if order(entry_or_end.id) > sent:
            yield entry_or_end.text()
