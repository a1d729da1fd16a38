"""`enrollment migrate`: bring the tables to the newest revision, show how far they are, or print the SQL for it."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.output import Json, document, note, say, table

if TYPE_CHECKING:
    from worker.schema import Status

verbs = typer.Typer(invoke_without_command=True, help="Create the tables, or bring them to the newest revision.")


@verbs.callback()
def migrate(
    ctx: typer.Context,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for this database, and change nothing.")] = False,
) -> None:
    """Create the tables, or bring them to the newest revision; what is in them stays. Safe beside running workers."""
    if ctx.invoked_subcommand is not None:
        return
    from worker import schema
    from worker.settings import Settings

    url = Settings.load().require_database_url()
    if sql:
        for statement in schema.script(url):
            typer.echo(f"{statement.rstrip(';')};")
        return
    done: list[schema.Revision] = []

    def tell(revision: schema.Revision) -> None:
        done.append(revision)
        say(f"{revision.id}  {revision.title}")

    schema.upgrade(url, done=tell)
    if not done:
        say("Nothing to do: the tables are at the newest revision.")


@verbs.command()
def status(json: Json = False) -> None:
    """Show which revisions are missing, and whether old workers may run meanwhile; exit code 1 if any is."""
    from dataclasses import asdict

    from worker import schema
    from worker.cli.connect import database

    with database() as connection:
        found = schema.status(connection)
    if json:
        document(asdict(found))
    elif found.current == found.newest:
        say(f"At {found.current}, the newest revision.")
    else:
        say(f"At {found.current or 'the beginning'}; the newest revision is {found.newest}.")
        rows = [(it.id, "yes" if it.stops is None else f"no: {it.stops}", it.title) for it in found.pending]
        table(("revision", "beside old workers", "title"), rows)
        note(_next(found))
    if found.current != found.newest:
        raise typer.Exit(1)


def _next(found: "Status") -> str:
    if not found.pending:
        return "The database is newer than this version; install that one."
    if any(revision.stops for revision in found.pending):
        return "Stop the workers of the version before, run `enrollment migrate`, then start those of this version."
    return "Run `enrollment migrate`; workers of the version before may go on. Then restart them one after the other."


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="migrate", rich_help_panel="Look after")
