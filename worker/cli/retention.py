"""`enrollment retention`, `export`, `snapshot`: what is removed when, and what is written down of it before that."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.output import Json, document, fields, gap, note, number, say, table

if TYPE_CHECKING:
    from models.retention import Going, State

verbs = typer.Typer(invoke_without_command=True, help="Show what is removed because of its age, and what is kept.")

_NOW: Final = 3600.0  # seconds that `run` takes at most


@verbs.callback()
def retention(
    ctx: typer.Context,
    days: Annotated[
        int | None, typer.Option(min=1, help="As if commands were kept so long. Default: ENROLLMENT_RETENTION.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what is old enough to go, what is kept and why, and how far the removal is. Changes nothing."""
    if ctx.invoked_subcommand is not None:
        return
    from datetime import UTC, timedelta

    from models import retention
    from worker.cli.connect import database
    from worker.settings import Settings

    days = days or Settings.load().retention
    now = datetime.now(UTC)
    before = now - timedelta(days=days or 36_500) - retention.MARGIN
    with database() as connection:
        found = retention.state(connection, before)
        going = retention.going(connection, before) if days else []
    if json:
        rows = {"going": [it._asdict() for it in going], "before": before if days else None}
        document({"days": days, **rows, **found._asdict(), "part": found.part.name.lower()})
    else:
        _show(days, before, found, going)


@verbs.command()
def run() -> None:
    """Remove now what is old enough to go, in small steps beside running workers. Ctrl-C: goes on later."""
    from models.engine import make_engine
    from tasks.retention import retain
    from worker.settings import Settings, SettingsError

    settings = Settings.load()
    if settings.retention is None:
        raise SettingsError("ENROLLMENT_RETENTION is not set, so everything is kept; set it to a number of days.")
    engine = make_engine(settings.require_database_url(), application_name="enrollment command line")
    try:
        removed = retain(engine, settings.retention, budget=_NOW, at_once=True)
    finally:
        engine.dispose()
    say(f"{number(removed, 'row')} removed.")


def export(
    commands: Annotated[bool, typer.Option("--commands", help="The commands, as their result events.")],
    before: Annotated[datetime, typer.Option("--before", help="Those processed before this time, in UTC.")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="A new file: JSON Lines.")],
) -> None:
    """Write an archive, and read it again: the exit code is 0 only where it holds every command of before that time."""
    from tasks.archive import write
    from worker.cli.connect import database

    del commands  # there is nothing else yet; the name says what the file holds
    with database() as connection:
        archived = write(connection.engine, before, output)
    say(f"{number(archived.commands, 'command')} in {output}, complete. SHA-256: {archived.sha256}")


def snapshot(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file; default: here.")
    ] = None,
) -> None:
    """Write all enrollments as JSON Lines: first the cursor from which GET /changes goes on, at last their number."""
    from contextlib import nullcontext
    from sys import stdout

    from models import feed
    from worker.cli.connect import database

    with database() as connection, output.open("w", encoding="utf-8") if output else nullcontext(stdout) as file:
        connection.execution_options(isolation_level="REPEATABLE READ")
        file.writelines(feed.snapshot(connection))


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="retention", rich_help_panel="Look after")
    app.command(rich_help_panel="Look after")(export)
    app.command(rich_help_panel="Read")(snapshot)


def _show(days: int | None, before: datetime, found: "State", going: "list[Going]") -> None:
    if days is None:
        note("ENROLLMENT_RETENTION is not set: everything is kept. `--days N` shows what would go.")
    else:
        say(f"Commands are kept for {number(days, 'day')}. Old enough to go, because it is older than that:")
        rows = [(it.table, f"{'' if it.exact else 'about '}{it.rows:,}") for it in going]
        table(("table", "rows"), rows)
        gap()
    kept = "until their events are published (outbox)"
    pairs = [
        ("kept", f"{number(found.unpublished, 'command')} {kept}" if found.unpublished else None),
        ("ids kept", f"{found.forgotten:,}, of removed commands that have no age"),
        (
            "refused as too_old",
            f"stamps before {found.forgotten_before:%Y-%m-%dT%H:%M:%SZ}" if found.forgotten_before else None,
        ),
        ("last complete", found.passed_at),
        ("at", found.part.name.lower()),
        ("removed so far", f"{found.removed:,}"),
    ]
    fields([("removed before", before), *pairs] if days else pairs)
