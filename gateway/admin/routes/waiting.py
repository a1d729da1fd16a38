"""Commands that wait: shown, let go, withdrawn."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from enrollment.commands import uuid_or_none
from enrollment.ids import uuid7
from gateway.admin import decisions
from gateway.admin.errors import page_not_found
from gateway.admin.form import numbers
from gateway.admin.pages import After, links, page_router, render
from gateway.admin.session import Posted, Who, text_of
from gateway.dependencies import Gateway, Held
from models import audit, awaited
from models.deferred import Reason, Wait
from worker.settings import Settings

router = page_router()

PAGE: Final = 50  # commands
_SHARES: Final = 10


@router.get("/waiting")
async def show(
    request: Request, gateway: Held, course: int | None = None, student: int | None = None, after: After = None
) -> Response:
    """Show what waits, and for what the most do."""
    return await _page(request, gateway, _wait(course, student), after=after)


@router.post("/waiting/release")
async def release(request: Request, gateway: Held, form: Posted, who: Who) -> Response:
    """End the wait for one course or student."""
    of = _wait(*(next(iter(numbers([text_of(form, name)])), None) for name in ("course", "student")))
    if of is None:
        raise page_not_found()
    ended = await to_thread.run_sync(_end, gateway.settings, of, who.source)
    noun = "command waits" if ended == 1 else "commands wait"
    return await _page(request, gateway, None, said=f"{ended:,} {noun} no longer.", ended=ended > 0)


@router.post("/waiting/withdraw")
async def withdraw(request: Request, gateway: Held, form: Posted, who: Who) -> Response:
    """Withdraw one command."""
    target = uuid_or_none(text_of(form, "command"))
    if target is None:
        raise page_not_found()
    command_id = uuid7()  # noted before it is sent: nothing is changed that nobody is known for
    await gateway.read(audit.add, who.source, audit.WITHDRAWN, [audit.command(target)], command_ids=[command_id])
    await to_thread.run_sync(_withdraw, gateway.settings, target, who.source, command_id)
    return await _page(request, gateway, None, said=f"A worker is told to withdraw {target}.", ended=True)


async def _page(
    request: Request, gateway: Gateway, of: Wait | None, *, after: int | None = None, said: str = "", ended: bool = True
) -> Response:
    found = await gateway.read(awaited.page, of=of, after=after or 0, limit=PAGE + 1)
    counts = await gateway.read(awaited.counts, most=_SHARES)
    first, following = links(request, after, found[PAGE - 1].id if len(found) > PAGE else None, **_said(of))
    return render(
        request,
        "waiting.html",
        commands=found[:PAGE],
        counts=counts,
        of=of,
        first=first,
        next=following,
        said=said,
        ended=ended,
    )


def _wait(course: int | None, student: int | None) -> Wait | None:
    ids: Sequence[tuple[Reason, int | None]] = ((Reason.UNKNOWN_COURSE, course), (Reason.UNKNOWN_STUDENT, student))
    return next((Wait(reason, id_) for reason, id_ in ids if id_ is not None and numbers([str(id_)])), None)


def _said(of: Wait | None) -> dict[str, str]:
    return {} if of is None else {of.reason.removeprefix("unknown_"): str(of.id)}


def _end(settings: Settings, of: Wait, by: str) -> int:
    subject = audit.course(of.id) if of.reason is Reason.UNKNOWN_COURSE else audit.student(of.id)
    with decisions.database(settings) as engine, engine.begin() as connection:
        ended = awaited.end_waits(connection, (), of)
        audit.add(connection, by, audit.RELEASED, [subject], detail={"commands": ended})
    return ended


def _withdraw(settings: Settings, target: UUID, by: str, command_id: UUID) -> None:
    with decisions.client(settings) as client:
        client.withdraw(target, source=by, command_id=command_id)
