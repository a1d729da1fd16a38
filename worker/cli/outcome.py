"""Waiting for what comes of a command that was just sent."""

from time import monotonic, sleep
from typing import Final
from uuid import UUID

import typer

from enrollment.commands import Command
from enrollment.errors import EnrollmentError, UnknownCommand
from enrollment.fold import Record
from enrollment.parsing import content_hash
from models import dead_letters, queries
from worker.cli.connect import database
from worker.cli.lookups import show_record

_POLL: Final = 0.1  # seconds


class NoOutcomeYet(EnrollmentError):
    """The command is in the queue, and no worker has processed it."""

    def __init__(self, command_id: UUID, seconds: float) -> None:
        super().__init__(
            f"The command was sent, and has no outcome after {seconds:g} s. `enrollment doctor` tells whether a worker "
            f"is at work; `enrollment command {command_id}` shows the outcome when there is one."
        )


class Kept(EnrollmentError):
    """The command has no outcome, because it became a dead letter."""

    def __init__(self, dead_letter: int) -> None:
        super().__init__(
            f"The command was sent, and has become the dead letter {dead_letter}. `enrollment dead-letters show "
            f"{dead_letter}` says why; replay it when the cause is mended."
        )


class IdTaken(EnrollmentError):
    """Another command was processed under this id."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            f"Another command was processed under the id {command.command_id} and stands; send this one with a new id."
        )


def show_outcome(command: Command, seconds: float, as_json: bool) -> None:
    """Print what came of the command; exit with 1 if it was rejected. Raises NoOutcomeYet, Kept, IdTaken."""
    record = _outcome(command.command_id, seconds)
    if record.content_hash != content_hash(command):
        raise IdTaken(command)
    show_record(record, as_json)
    if record.outcome == "rejected":
        raise typer.Exit(1)


def show_withdrawn(command_id: UUID, seconds: float, as_json: bool) -> None:
    """Print what came of a withdraw; exit with 1 if it was too late. Raises NoOutcomeYet, Kept."""
    record = _outcome(command_id, seconds)
    show_record(record, as_json)
    if record.outcome == "rejected":
        raise typer.Exit(1)


def _outcome(command_id: UUID, seconds: float) -> Record:
    deadline = monotonic() + seconds
    with database() as connection:
        while True:
            try:
                return queries.command(connection, command_id)
            except UnknownCommand:
                if monotonic() > deadline:
                    if letter := dead_letters.of_command(connection, command_id):
                        raise Kept(letter) from None
                    raise NoOutcomeYet(command_id, seconds) from None
            connection.rollback()
            sleep(_POLL)
