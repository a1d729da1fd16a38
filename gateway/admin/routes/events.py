"""The stream of events, as it happens."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, Header, Query, Request
from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.responses import Response, StreamingResponse

from enrollment.events import Event
from gateway.admin.errors import PageError
from gateway.admin.pages import fragment, page_router, render
from gateway.admin.session import AuthPolicy, Who, policy_of
from gateway.authentication import Session
from gateway.dependencies import Held
from gateway.event_listener import EventListener, Watcher
from gateway.event_stream import PAGE, Stream, StreamEntry
from gateway.sse import has_room

router = page_router()

SHOWN: Final = 100  # events on a page that is opened
AT_ONCE: Final = 50  # events in one message to a page; more that come at the same time are counted
LOOKED_AT: Final = 20_000  # of the newest entries, where only some are asked for
_GATHER: Final = 0.3  # seconds: a page is told three times a second at most
_HEARTBEAT: Final = 15.0  # seconds; proxies close what is silent for a minute
_MISSED: Final = 10  # pages of the stream that are read for a browser that comes again
_NOTHING: Final = ": still here\n\n"
_ID: Final = re.compile(r"\d{1,19}(-\d{1,19})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for, as a person typed it; empty: all."""

    outcome: Annotated[str, Query(max_length=20)] = ""
    student: Annotated[str, Query(max_length=20)] = ""
    course: Annotated[str, Query(max_length=20)] = ""
    source: Annotated[str, Query(max_length=64)] = ""

    @property
    def said(self) -> dict[str, str]:
        """What was typed."""
        return {name: typed for name, it in asdict(self).items() if (typed := it.strip())}

    def of(self, events: Sequence[Event]) -> list[Event]:
        """Return those that are asked for."""
        said = self.said
        return [event for event in events if all(value in _values(event, name) for name, value in said.items())]


Asked = Annotated[EventFilter, Depends()]


def _values(event: Event, name: str) -> set[str]:
    data = event.data
    match name:
        case "outcome":
            return {event.type.split(".")[1]}
        case "course":
            effects = (data.enrolled, data.unenrolled, data.unchanged, data.superseded)
            return {str(it) for ids in (data.course_ids or (), *effects) for it in ids}
        case "student":
            return {str(data.student_id)}
        case _:
            return {str(data.source)}


@router.get("/events")
async def show(request: Request, gateway: Held, asked: Asked) -> Response:
    """Show the newest events; the stream adds what comes."""
    stream = gateway.listener.stream
    entries = await stream.newest(PAGE if asked.said else SHOWN)
    newest, looked_at = entries[0].id if entries else "0", len(entries)
    found = asked.of(_events(entries))
    while asked.said and entries and looked_at < LOOKED_AT and len(found) < SHOWN:
        entries = await stream.newest(PAGE, before=entries[-1].id)
        looked_at += len(entries)
        found += asked.of(_events(entries))
    more = "&" + urlencode(asked.said) if asked.said else ""
    return render(
        request,
        "events.html",
        entries=found[:SHOWN],
        newest=newest,
        looked_at=looked_at,
        asked=asked,
        more=more,
        skipped=0,
        fresh=False,
    )


async def place_of(gateway: Held, who: Who) -> AsyncIterator[None]:
    """Count the stream as open until its answer is over. Raises PageError when there are too many."""
    if not has_room(gateway.listener, who.source):
        raise PageError(503, "Not now", "Too many streams of events are open.", {"Retry-After": "30"})
    with gateway.listener.counted(who.source):
        yield


@router.get("/events/stream", dependencies=[Depends(place_of)])
async def stream(
    request: Request,
    gateway: Held,
    who: Who,
    asked: Asked,
    *,
    after: Annotated[str, Query(max_length=50)] = "",
    last_event_id: Annotated[str, Header(alias="Last-Event-ID", max_length=50)] = "",
) -> Response:
    """Send what happens, as pieces of the page."""
    last = next((id_ for id_ in (last_event_id, after) if _ID.fullmatch(id_)), "")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second is for nginx
    return StreamingResponse(
        _stream(gateway.listener, last, who, policy_of(request), asked), media_type="text/event-stream", headers=headers
    )


async def _stream(
    listener: EventListener, last: str, who: Session, policy: AuthPolicy, asked: EventFilter
) -> AsyncIterator[str]:
    with listener.watched() as watcher:
        yield "retry: 2000\n\n"
        missed = await _missed(listener.stream, last) if last else []
        if missed:
            yield _message(missed, asked)
            last = missed[-1].id
        while True:
            entries, ended = await _gathered(watcher)
            if not await _goes_on(policy, who):
                return
            fresh = [entry for entry in entries if _order(entry.id) > _order(last)]
            yield _message(fresh, asked) if fresh else _NOTHING
            if ended:
                return


async def _goes_on(policy: AuthPolicy, who: Session) -> bool:
    """Tell whether whoever watches is still logged in. While Redis is away there is nothing to see either."""
    try:
        return await policy.is_open(who)
    except RedisError:
        return False


async def _missed(stream: Stream, after: str) -> list[StreamEntry]:
    missed: list[StreamEntry] = []
    for _ in range(_MISSED):
        page = await stream.page(missed[-1].id if missed else after)
        missed += page
        if len(page) < PAGE:
            break
    return missed


async def _gathered(watcher: Watcher) -> tuple[list[StreamEntry], bool]:
    """Return what came, in order, and whether that was the end. Nothing after a while without any."""
    entries: list[StreamEntry] = []
    seconds = _HEARTBEAT
    while True:
        try:
            entry = await watcher.get(seconds)
        except TimeoutError:
            return entries, False
        if entry is None:
            return entries, True
        if not entries:
            await asyncio.sleep(_GATHER)
            seconds = 0
        entries.append(entry)


def _message(entries: Sequence[StreamEntry], asked: EventFilter) -> str:
    """Return a server-sent event: the newest entries, the newest first, and how many are left out."""
    left = 0 if asked.said else max(0, len(entries) - AT_ONCE)
    found = asked.of(_events(list(reversed(entries[left:]))))
    shown, skipped = found[:AT_ONCE], left or max(0, len(found) - AT_ONCE)
    if not shown and not skipped:
        return _NOTHING
    html = fragment("_events.html", entries=shown, skipped=skipped, fresh=True)
    lines = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"id: {entries[-1].id}\n{lines}\n"


def _events(entries: Sequence[StreamEntry]) -> list[Event]:
    found = []
    for entry in entries:
        try:
            found.append(Event.model_validate_json(entry.event))
        except ValidationError:  # not one of ours
            continue
    return found


def _order(entry_id: str) -> tuple[int, int]:
    time, _, number = entry_id.partition("-")
    return int(time or 0), int(number or 0)
