"""Lookups of commands."""

from fastapi import APIRouter, Request, Response

from enrollment.errors import UnknownCommand
from enrollment.events import event_of
from gateway.answers import Command, answer, lookup
from gateway.dependencies import Held
from gateway.describing import COMMAND
from gateway.fields import CommandId, IfNoneMatch, Prefer
from gateway.preferences import preference_of
from models import queries

router = APIRouter(tags=["commands"])


@router.get("/commands/{command_id}", response_model=Command, responses=COMMAND)
async def get_command(
    request: Request, gateway: Held, command_id: CommandId, _: Prefer = None, __: IfNoneMatch = None
) -> Response:
    """A command and what came of it; `pending` while that is not known. `Prefer: wait=N` waits for it."""
    preference = preference_of(request.headers.getlist("prefer"), 0)
    with gateway.listener.expecting([command_id]) as expected:
        try:
            record = await gateway.read(queries.command, command_id)
        except UnknownCommand:
            sent = await gateway.memory.recall(command_id)
            if preference.wait and await expected.wait(preference.wait):
                return lookup(request, Command.of(expected.events()[0]), preference.headers)
            await gateway.writer.require_no_failure([command_id])
            if sent is None:
                raise
            headers = {"Cache-Control": "no-store", "Retry-After": "1", **preference.headers}
            return answer(Command.pending(command_id, sent.issued_at), headers=headers)
    return lookup(request, Command.of(event_of(record)), preference.headers)
