"""`enrollment catalog`: students and courses come from CSV files, and leave; courses close and open."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.output import Json, document, note, number, say, whoami

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from models.removal import Table

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="sis_ids or ids; @FILE has one a line.")]
Students = Annotated[bool, typer.Option("--students", help="Students.")]
Courses = Annotated[bool, typer.Option("--courses", help="Courses.")]
_PATIENCE: Final = 120.0  # seconds for the workers to unenroll

verbs = typer.Typer(
    no_args_is_help=True,
    help="Look after the students and courses that commands may name.",
)


@verbs.command()
def load(
    students: Annotated[
        Path | None,
        typer.Option("--students", metavar="CSV", exists=True, dir_okay=False, help="Columns id, sis_id, name."),
    ] = None,
    courses: Annotated[
        Path | None,
        typer.Option("--courses", metavar="CSV", exists=True, dir_okay=False, help="Columns id, sis_id, code, title."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Remove who is not in the file, where no enrollments stand.")
    ] = False,
    json: Json = False,
) -> None:
    """Add students and courses, and change those that differ. All or nothing; a second time changes nothing.

    The first line names the columns; `id` or `sis_id` must be among them, the others may be left out. Who has no id is
    known by the sis_id, and the database assigns an id. Rows of imports that waited for these are sent.
    """
    from tasks import catalog_files
    from worker.cli.connect import database
    from worker.cli.taking_up import TakingUp

    if students is None and courses is None:
        raise typer.BadParameter("say --students, --courses or both")
    with database() as connection:
        done = catalog_files.load(connection, students=students, courses=courses, full=full, by=whoami())
        connection.commit()
        TakingUp(connection.engine).now()
    if json:
        document({name: counts._asdict() for name, counts in done.items()})
        return
    for name, counts in done.items():
        new = number(counts.inserted, f"new {name[:-1]}")
        say(f"{new}, {counts.updated:,} changed, {counts.unchanged:,} as before.")


@verbs.command()
def remove(
    names: Names,
    students: Students = False,
    courses: Courses = False,
    unenroll: Annotated[
        bool, typer.Option("--unenroll", help="Unenroll first, by commands through the queue; workers must run.")
    ] = False,
) -> None:
    """Remove students or courses, all or nothing; refused where enrollments stand. Unknown names are told and left."""
    from models import removal
    from worker.cli.connect import database

    table = _table(students, courses)
    with database() as connection:
        ids = _ids(connection, table, names)
        if unenroll:
            _unenroll(connection, table, ids)
        count = removal.remove_ids(connection, table, ids, by=whoami())
    say(f"{number(count, table[:-1])} removed.")


@verbs.command()
def close(names: Names) -> None:
    """Let courses take no more enrollments (`course_closed`). Those that they have stay, and can be taken back."""
    from models import removal
    from worker.cli.connect import database

    with database() as connection:
        count = removal.close(connection, _ids(connection, "courses", names), by=whoami())
    say(f"{number(count, 'course')} closed.")


@verbs.command("open")
def reopen(names: Names) -> None:
    """Let closed courses take enrollments again."""
    from models import removal
    from worker.cli.connect import database

    with database() as connection:
        count = removal.reopen(connection, _ids(connection, "courses", names), by=whoami())
    say(f"{number(count, 'course')} opened.")


@verbs.command()
def export(
    students: Students = False,
    courses: Courses = False,
) -> None:
    """Print students or courses as the CSV that `catalog load` reads."""
    import csv
    import sys

    from models import removal
    from worker.cli.connect import database

    with database() as connection:
        csv.writer(sys.stdout, lineterminator="\n").writerows(removal.export(connection, _table(students, courses)))


def _table(students: bool, courses: bool) -> "Table":
    if students is courses:
        raise typer.BadParameter("say either --students or --courses")
    return "students" if students else "courses"


def _ids(connection: "Connection", table: "Table", names: list[str]) -> list[int]:
    from models import removal

    said: list[str] = []
    for name in names:
        lines = Path(name[1:]).read_text("utf-8").splitlines() if name.startswith("@") else [name]
        said += [line.strip() for line in lines if line.strip()]
    ids, unknown = removal.resolve(connection, table, said)
    for name in unknown:
        note(f"There is no {table[:-1]} {name}.")
    return ids


def _unenroll(connection: "Connection", table: "Table", ids: list[int]) -> None:
    """Send an unenroll for each student concerned, and wait until the workers have applied them. Courses are closed."""
    from time import monotonic, sleep

    from models import removal
    from worker.cli.connect import client_of_broker

    if table == "courses":
        removal.close(connection, ids, by=whoami())
        note("They take no more enrollments from here on; `catalog open` ends that, should they not be removed.")
    connection.commit()
    with client_of_broker() as client, client.bulk() as bulk:
        for student_id, course_ids in removal.standing(connection, table, ids):
            bulk.unenroll(student_id, course_ids, source="catalog:remove")
    until = monotonic() + _PATIENCE
    while removal.standing(connection, table, ids) and monotonic() < until:
        connection.rollback()
        sleep(0.2)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="catalog", rich_help_panel="Look after")
