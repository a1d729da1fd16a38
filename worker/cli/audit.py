"""`enrollment audit`: who decided what by hand."""

from typing import Annotated

import typer

from worker.cli.output import Json, document, say, table


def audit(
    student: Annotated[int | None, typer.Option("--student", metavar="ID", help="Of one student.")] = None,
    dead_letter: Annotated[int | None, typer.Option("--dead-letter", metavar="ID", help="Of one dead letter.")] = None,
    course: Annotated[int | None, typer.Option("--course", metavar="ID", help="Of one course.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=10_000, help="How many of the newest.")] = 20,
    json: Json = False,
) -> None:
    """Show who decided about dead letters, waits and imports, changed students by hand, closed or removed courses."""
    from models import audit as entries
    from worker.cli.connect import database

    said = ((student, entries.student), (course, entries.course), (dead_letter, entries.dead_letter))
    subjects = [name(id_) for id_, name in said if id_ is not None]
    if len(subjects) > 1:
        raise typer.BadParameter("Say one of --student, --course and --dead-letter.")
    subject = subjects[0] if subjects else None
    with database() as connection:
        found = entries.newest(connection, subject=subject, limit=last)
    if json:
        document([entry._asdict() for entry in found])
    elif found:
        table(("at", "who", "action", "subject"), [(it.at, it.who, it.action, it.subject) for it in found])
    else:
        say("Nobody has decided anything by hand.")


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(rich_help_panel="Watch")(audit)
