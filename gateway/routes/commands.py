"""Lookups of commands, and the end of those that wait."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from enrollment.errors import UnknownCommand
from enrollment.events import Event, event_of
from gateway.dependencies import Gateway, Held
from gateway.openapi import COMMAND, WITHDRAW
from gateway.preferences import preference_of
from gateway.schemas.parameters import CommandId, IdempotencyKey
from gateway.schemas.responses import Command, answer, lookup
from gateway.write_response import submit
from models import queries

router = APIRouter(tags=["commands"])


@router.get("/commands/{command_id}", response_model=Command, responses=COMMAND)
async def get_command(request: Request, gateway: Held, command_id: CommandId) -> Response:
    """A command and what came of it; `pending` or `waiting` while that is not known. `Prefer: wait=N` waits for it."""
    preference = preference_of(request.headers.getlist("prefer"), 0)
    with gateway.listener.expecting([command_id]) as expected:
        event = await _stored(gateway, command_id)
        if (event is None or event.is_waiting) and preference.wait:
            waited = await expected.wait(preference.wait)
            event = expected.events()[0] if waited else await _stored(gateway, command_id)  # an event may be lost
    if event is not None:
        return lookup(request, Command.of(event), preference.headers)
    sent = await gateway.store.recall(command_id)
    await gateway.submitter.require_no_failure([command_id], None if sent is None else sent.since)
    if sent is None:
        raise UnknownCommand(command_id)
    headers = {"Cache-Control": "no-store", "Retry-After": "1", **preference.headers}
    return answer(Command.pending(command_id, sent.issued_at), headers=headers)


@router.delete("/commands/{command_id}", response_model=Command, responses=WITHDRAW)
async def withdraw_command(request: Request, command_id: CommandId, key: IdempotencyKey = None) -> Response:
    """End a command that waits: what comes of it is `withdrawn`. One that has not come yet is ended when it comes."""
    return await submit(request, key).withdraw(command_id)


async def _stored(gateway: Gateway, command_id: UUID) -> Event | None:
    try:
        return event_of(await gateway.read.lookup(queries.command, command_id))
    except UnknownCommand:
        return None
