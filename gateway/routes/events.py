"""The result events, live."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header
from starlette.responses import Response, StreamingResponse

from gateway.dependencies import Held
from gateway.describing import EVENTS
from gateway.problems import Problem
from gateway.stream import PAGE, Entry, Stream
from gateway.waiting import Listener

router = APIRouter(tags=["events"])

MAX_STREAMS: Final = 1000  # per process
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


@router.get("/events", response_class=StreamingResponse, responses=EVENTS)
async def watch_events(gateway: Held, last_event_id: LastEventId = None) -> Response:
    """Every result event as it happens, as server-sent events: `data` is the CloudEvent, `id` resumes after it."""
    if gateway.listener.watching >= MAX_STREAMS:
        raise Problem(
            503, "unavailable", "Too many streams of events are open. Try again later.", headers={"Retry-After": "30"}
        )
    if last_event_id is not None:
        await gateway.listener.stream.ping()  # raises what is answered with 503, while that can still be said
    return StreamingResponse(_stream(gateway.listener, last_event_id), media_type="text/event-stream", headers=_HEADERS)


async def _stream(listener: Listener, last: str | None) -> AsyncIterator[str]:
    yield ": the result events, from here on\n\n"
    if last is not None:
        async for entry in _past(listener.stream, last):
            last = entry.id
            yield _text(entry)
    with listener.watched() as watcher:
        if last is not None:  # what came between the last page and now
            async for entry in _past(listener.stream, last):
                last = entry.id
                yield _text(entry)
        sent = _order(last)
        while True:
            try:
                entry_or_end = await watcher.get(HEARTBEAT)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if entry_or_end is None:
                return
            if _order(entry_or_end.id) > sent:
                yield _text(entry_or_end)


async def _past(stream: Stream, after: str) -> AsyncIterator[Entry]:
    entries: list[Entry] = []
    while True:
        entries = await stream.page(entries[-1].id if entries else after)
        for entry in entries:
            yield entry
        if len(entries) < PAGE:
            return


def _order(entry_id: str | None) -> tuple[int, int]:
    time, _, number = (entry_id or "0").partition("-")
    return int(time), int(number or 0)


def _text(entry: Entry) -> str:
    return f"id: {entry.id}\ndata: {entry.event}\n\n"
