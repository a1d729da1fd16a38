"""`enrollment send`: one command, or a file of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from worker.cli.output import Json, document, say

if TYPE_CHECKING:
    from enrollment.commands import Command

FILE: Final = "file"
STDIN: Final = "-"
_PATIENCE: Final = 5.0  # seconds for a broker that is away; a person is waiting


class Verbs(TyperGroup):
    """The verbs of `send`. A first word that is none of them is a file to send."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb `file` before what is no verb."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            first = args[0]
            if (first == STDIN or not first.startswith("-")) and not _readable(first):
                ctx.fail(f"{first!r} is neither enroll, unenroll or replace, nor a file that is there.")
            args = [FILE, *args]
        return super().parse_args(ctx, args)


verbs = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    subcommand_metavar="VERB|FILE",
    help="Send one command, or a file of them: `enrollment send commands.jsonl`.",
)

Student = Annotated[int, typer.Option("--student", "-s", metavar="ID", help="The student's id.")]
Courses = Annotated[
    list[str] | None,
    typer.Option("--course", "-c", metavar="ID", help="A course's id; say it again, or 101,102, for more."),
]
IssuedAt = Annotated[
    str | None,
    typer.Option(
        "--issued-at",
        metavar="TIME",
        help="When it was decided, as 2026-01-31T09:30:00Z. Default: now, or with --id when a worker first sees it.",
    ),
]
EffectiveAt = Annotated[
    str | None, typer.Option("--effective-at", metavar="TIME", help="When it is to take effect. Default: now.")
]
WaitUntil = Annotated[
    str | None,
    typer.Option("--wait-until", metavar="TIME", help="Until when to wait for a student or course that is not there."),
]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Who sends it.")]
Id = Annotated[
    str | None,
    typer.Option(
        "--id", metavar="UUID", help="To send the same command again: it takes effect once. Default: a new one."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the outcome; exit code 1 if it is rejected.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", min=0, help="Seconds that --wait waits.")]


def _add(kind: str, what: str) -> None:
    """Add the verb of a kind that takes courses and no option of its own."""

    @verbs.command(kind, help=what)
    def send(
        *,
        student: Student,
        course: Courses = None,
        issued_at: IssuedAt = None,
        source: Source = None,
        effective_at: EffectiveAt = None,
        wait_until: WaitUntil = None,
        id_: Id = None,
        wait: Wait = False,
        timeout: Timeout = 30,
        as_json: Json = False,
    ) -> None:
        when = {"issued_at": issued_at, "effective_at": effective_at, "wait_until": wait_until}
        command = _command(kind, student, course, source=source, command_id=id_, **when)
        _send(command, wait, timeout, as_json)


_add("enroll", "Add courses to a student's.")
_add("unenroll", "Take courses from a student's.")


@verbs.command()
def replace(
    *,
    student: Student,
    course: Courses = None,
    none: Annotated[bool, typer.Option("--none", help="No course at all.")] = False,
    issued_at: IssuedAt = None,
    source: Source = None,
    effective_at: EffectiveAt = None,
    wait_until: WaitUntil = None,
    id_: Id = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    as_json: Json = False,
) -> None:
    """Make a student's courses exactly these."""
    if none is bool(course):
        raise typer.BadParameter("say either --course, once or more often, or --none")
    when = {"issued_at": issued_at, "effective_at": effective_at, "wait_until": wait_until}
    command = _command("replace", student, course, source=source, command_id=id_, **when)
    _send(command, wait, timeout, as_json)


@verbs.command(FILE)
def send_file(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The file; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Send a file, one JSON object per line. `enrollment send FILE` is short for it.

    The fields of a line: command (enroll, unenroll, replace), student_id, course_ids, and where wanted command_id,
    issued_at, source, effective_at, wait_until. Commands travel many to a message. A line that is no command is told
    with its number and left out; the exit code is then 1.

    A line without command_id gets a new one each time, so sending the file again sends new commands. With command_ids
    of your own, sending it again changes nothing.
    """
    from worker import tracing
    from worker.cli.file import send_lines
    from worker.settings import Settings

    if not _readable(path):
        raise typer.BadParameter(f"there is no file {path}", param_hint="FILE")
    tracing.configure(Settings.load(), "enrollment-cli")
    report = send_lines(path, progress=not as_json)
    if as_json:
        document(report.as_json())
    else:
        say(report.summary())
    if report.invalid:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="send", rich_help_panel="Send")


def _command(kind: str, student: int, courses: list[str] | None, **said: str | None) -> "Command":
    from enrollment.client import InvalidCommand, read_command

    ids = [_id(word) for text in courses or () for word in text.split(",")]
    try:
        return read_command({"command": kind, "student_id": student, "course_ids": ids, **said})
    except InvalidCommand as error:
        raise typer.BadParameter(str(error)) from None


def _send(command: "Command", wait: bool, timeout: float, as_json: bool) -> None:
    from enrollment.client import Client
    from enrollment.commands import as_fields
    from worker import tracing
    from worker.cli.outcome import show_outcome
    from worker.settings import Settings

    settings = Settings.load()
    tracing.configure(settings, "enrollment-cli")
    options = settings.transport_options()
    with Client(settings.require_broker_url(), patience=_PATIENCE, transport_options=options) as client:
        client.send(command)
    if wait:
        show_outcome(command, timeout, as_json)
    elif as_json:
        document(as_fields(command))
    else:
        courses = ", ".join(map(str, command.course_ids)) or "none"
        say(f"Sent {command.command_id}: {command.command} student {command.student_id}, courses {courses}.")


def _id(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise typer.BadParameter(f"{word!r} is no course id, which is an integer", param_hint="--course") from None


def _readable(path: str) -> bool:
    return path == STDIN or (Path(path).exists() and not Path(path).is_dir())
