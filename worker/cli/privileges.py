"""`enrollment acl` and `enrollment grants`: users and roles with the least rights, for whoever sets the servers up."""

from pathlib import Path
from typing import Annotated, Final

import typer

from worker.cli.output import note

_READABLE: Final = 0o600


def acl(
    passwords: Annotated[
        Path | None,
        typer.Option(
            "--passwords",
            metavar="FOLDER",
            help="Take each user's password from the file of its name; make missing ones.",
        ),
    ] = None,
) -> None:
    """Print users of Redis with the least rights, as lines of an `aclfile`, for the names in the settings."""
    from worker.acl import database_of, users
    from worker.settings import Settings

    settings = Settings.load()
    database = database_of(settings.require_broker_url())
    found = users(stream=settings.events_stream, options=settings.broker_options, database=database)
    for user in found:
        typer.echo(user.line(None if passwords is None else _password(passwords / user.name)))
    if passwords is None:
        note("Nobody can log in as these yet: add `>PASSWORD` behind `on`, or give --passwords FOLDER.")


def grants() -> None:
    """Print SQL that makes roles of PostgreSQL with the least rights; for psql, as who owns the tables."""
    from models.grants import grants as statements
    from worker.cli.connect import database

    with database() as connection:
        for statement in filter(None, statements(connection)):
            typer.echo(statement if statement.startswith("--") else f"{statement};")
    note("The roles have no passwords yet: `ALTER ROLE enrollment_worker PASSWORD '...'`, or certificates.")


def _password(path: Path) -> str:
    from secrets import token_urlsafe

    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(_READABLE)
        path.write_text(token_urlsafe(32))
    return path.read_text("utf-8").strip()


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    for verb in (acl, grants):
        app.command(rich_help_panel="Look after")(verb)
