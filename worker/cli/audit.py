"""`enrollment audit`: who decided what by hand."""

from typing import Annotated

import typer

from worker.cli.output import Json, document, say, table


def audit(
    student: Annotated[int | None, typer.Option("--student", metavar="ID", help="Of one student.")] = None,
    dead_letter: Annotated[int | None, typer.Option("--dead-letter", metavar="ID", help="Of one dead letter.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=10_000, help="How many of the newest.")] = 20,
    json: Json = False,
) -> None:
    """Show who replayed, edited or discarded dead letters, changed students by hand, exported or erased them."""
    from models import audit as entries
    from worker.cli.connect import database

    if student is not None and dead_letter is not None:
        raise typer.BadParameter("Say --student or --dead-letter, not both.")
    subject = None if student is None else entries.student(student)
    if dead_letter is not None:
        subject = entries.dead_letter(dead_letter)
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
