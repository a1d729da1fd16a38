"""`enrollment catalog load`: students and courses from CSV files."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.output import Json, document, number, say

verbs = typer.Typer(
    no_args_is_help=True,
    help="Look after the students and courses that commands may name.",
)


@verbs.callback()
def common() -> None:
    pass  # with it, `load` stays a verb of its own although it is the only one


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
    json: Json = False,
) -> None:
    """Add students and courses, and change those that differ. All or nothing; a second time changes nothing.

    The first line names the columns; `id` or `sis_id` must be among them, the others may be left out. Who has no id is
    known by the sis_id, and the database assigns an id.
    """
    from tasks import catalog_files
    from worker.cli.connect import database

    if students is None and courses is None:
        raise typer.BadParameter("say --students, --courses or both")
    with database() as connection:
        done = catalog_files.load(connection, students=students, courses=courses)
    if json:
        document({name: counts._asdict() for name, counts in done.items()})
        return
    for name, counts in done.items():
        new = number(counts.inserted, f"new {name[:-1]}")
        say(f"{new}, {counts.updated:,} changed, {counts.unchanged:,} as before.")


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="catalog", rich_help_panel="Look after")
