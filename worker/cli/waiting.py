"""`enrollment waiting`: commands that wait for their time, or for a student or course."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from worker.cli.output import Json, document, note, number, say, table, whoami

if TYPE_CHECKING:
    from models.deferred import Wait

verbs = typer.Typer(no_args_is_help=True, help="Commands that wait for their time, or for a student or course.")

Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[COMMAND]...", help="The ids of commands.")]
Id = Annotated[UUID, typer.Argument(metavar="COMMAND", help="The id of the command.")]
Course = Annotated[int | None, typer.Option("--course", "-c", metavar="ID", help="All that wait for this course.")]
Student = Annotated[int | None, typer.Option("--student", "-s", metavar="ID", help="All that wait for this student.")]
_SHOWN = {"time": "its time", "unknown_course": "course", "unknown_student": "student"}


@verbs.command("list")
def show_list(
    *,
    course: Course = None,
    student: Student = None,
    after: Annotated[int, typer.Option(metavar="ID", help="Go on after this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List commands that wait, in order of arrival, and for what the most do."""
    from models import awaited
    from worker.cli.connect import database

    of = _wait(course, student)
    with database() as connection:
        found = awaited.page(connection, of=of, after=after, limit=limit + 1)
        counts = awaited.counts(connection)
    if as_json:
        for it in found[:limit]:
            document(it._asdict())
        return
    rows = [
        (it.id, it.command_id, it.student_id, f"{_SHOWN[it.reason]} {it.waits_for or ''}".strip(), it.until)
        for it in found[:limit]
    ]
    if rows:
        table(("id", "command", "student", "waits for", "until"), rows)
    if len(found) > limit:
        note(f"There are more: --after {found[limit - 1].id} shows the next.")
    if of is None and after == 0:
        waiting = sum(counts.commands.values())
        least = "At least " if counts.is_cut else ""
        say(f"{least}{number(waiting, 'command')} {'waits' if waiting == 1 else 'wait'}.")
        for share in counts.shares[:5]:
            note(f"{number(share.commands, 'command')} for {_SHOWN[share.reason]} {share.id}")


@verbs.command()
def show(command_id: Id, as_json: Json = False) -> None:
    """Show a command that waits, or what came of it."""
    from models import queries
    from worker.cli.connect import database
    from worker.cli.lookups import show_record

    with database() as connection:
        show_record(queries.command(connection, command_id), as_json)


@verbs.command()
def release(command_ids: Ids = None, course: Course = None, student: Student = None) -> None:
    """End the wait for students and courses: the commands are decided now, and rejected where something is missing.

    A command that waits for its time is not decided sooner: withdraw it, and send another.
    """
    from models import audit, awaited
    from worker.cli.connect import database

    of = _wait(course, student)
    if not command_ids and of is None:
        raise typer.BadParameter("say which: ids of commands, --course or --student")
    with database() as connection:
        ended = awaited.end_waits(connection, command_ids or (), of)
        subjects = [audit.command(it) for it in command_ids or ()]
        if of is not None:
            subjects.append(audit.course(of.id) if course is not None else audit.student(of.id))
        audit.add(connection, whoami(), audit.RELEASED, subjects, detail={"commands": ended})
    if not ended:
        say("No wait has ended: none of these waits for a student or course. One that waits for its time: withdraw it.")
        raise typer.Exit(1)
    say(f"The wait of {number(ended, 'command')} has ended; a worker decides within seconds.")


@verbs.command()
def withdraw(
    command_id: Id,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Who withdraws it.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0, help="Seconds to wait for it.")] = 30,
    as_json: Json = False,
) -> None:
    """End a command that waits. One that has not come yet is ended when it comes."""
    from enrollment.client import Client
    from worker.cli.outcome import show_withdrawn
    from worker.settings import Settings

    settings = Settings.load()
    options = settings.transport_options()
    with Client(settings.require_broker_url(), patience=5.0, transport_options=options) as client:
        sent = client.withdraw(command_id, source=source)
    show_withdrawn(sent, timeout, as_json)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="waiting", rich_help_panel="Look after")


def _wait(course: int | None, student: int | None) -> "Wait | None":
    from models.deferred import Reason, Wait

    if course is not None and student is not None:
        raise typer.BadParameter("say --course or --student, not both")
    if course is not None:
        return Wait(Reason.UNKNOWN_COURSE, course)
    return None if student is None else Wait(Reason.UNKNOWN_STUDENT, student)
