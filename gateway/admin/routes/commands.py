"""Commands: what was asked, and what came of it."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from gateway.admin import views
from gateway.admin.pages import page_router, render
from gateway.dependencies import Held

router = page_router()

_POLL: Final = 10.0  # seconds that one question for an outcome is held open


@router.get("/commands/{command_id}")
async def show(request: Request, gateway: Held, command_id: UUID) -> Response:
    """Show a command, or that it is waited for."""
    return await _page(request, gateway, "command.html", command_id, seconds=0, tries=0)


@router.get("/commands/{command_id}/outcome")
async def outcome(
    request: Request,
    gateway: Held,
    command_id: UUID,
    tries: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Wait for what comes of a command."""
    return await _page(request, gateway, "_command.html", command_id, seconds=_POLL, tries=tries + 1)


async def _page(
    request: Request, gateway: Held, template: str, command_id: UUID, *, seconds: float, tries: int
) -> Response:
    record = await views.outcome(gateway, command_id, seconds)
    known = {} if record is None else await gateway.read.lookup(views.courses_named, [record])
    return render(request, template, command_id=command_id, record=record, known=known, tries=tries)
