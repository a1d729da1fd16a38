"""`enrollment privacy`: one person's data, given out or taken away."""

from typing import Annotated

import typer

from worker.cli.output import Json, document, note, say, whoami

verbs = typer.Typer(no_args_is_help=True, help="All that is kept of one student: export it, or erase who they are.")

Student = Annotated[int, typer.Option("--student", metavar="ID", min=1, max=2**63 - 1, help="The student's id.")]


@verbs.command()
def export(student: Student) -> None:
    """Print all that is kept of a student, as JSON."""
    from models import privacy
    from worker.cli.connect import database

    with database() as connection:
        found = privacy.export(connection, student, by=whoami())
    document(found)


@verbs.command()
def erase(
    student: Student,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """End a student's enrollments, and take away name, other ids and messages; exit code 1 where some of it is left.

    Remove the student from the systems that feed this one first, or the next import brings them back. Ids stay in the
    history: they keep late commands from bringing anything back.
    """
    from dataclasses import asdict

    from models import privacy
    from worker.cli.connect import database

    if not yes:
        typer.confirm(f"Erase student {student}? This cannot be undone.", abort=True)
    with database() as connection:
        done = privacy.erase(connection, student, by=whoami())
    if json:
        document(asdict(done))
    else:
        which = "" if done.found else " There was no such student in the catalog."
        say(
            f"Erased: {done.enrollments} enrollments ended, {done.dead_letters} dead letters and "
            f"{done.import_rows} rows of imports emptied.{which}"
        )
    if done.undecided:
        ids = ", ".join(map(str, done.undecided))
        note(f"Dead letters {ids} hold commands of others as well: replay or discard them, then erase again.")
    if done.scheduled:
        ids = " ".join(map(str, done.scheduled))
        note(f"Commands wait for their time: withdraw them, with `enrollment waiting withdraw ID` for each of {ids}.")
    if done.undecided or done.scheduled:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="privacy", rich_help_panel="Look after")
