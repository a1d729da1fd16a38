"""`enrollment reconcile`: after a restore, what database and stream do not know of each other, and putting it right."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import Json, document, fields, gap, note, number, say, table

if TYPE_CHECKING:
    from worker.reconciling import Found


def reconcile(
    repair: Annotated[
        bool, typer.Option("--repair", help="Do what is shown. Workers should be stopped; those that run wait.")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option("--since", help="The stream has lost nothing of before this time, in UTC.")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Something may be lost in both: every copy has to begin anew.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what the database and the event stream lack after a restore; exit code 1 where something does.

    Without --repair, nothing is changed.
    """
    from datetime import UTC

    from models import reconciling
    from worker import reconciling as both
    from worker.cli.connect import database, stream
    from worker.settings import Settings

    most = Settings.load().events_maxlen
    with stream() as (client, key), database() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        if repair:
            reconciling.lock(connection)
        start = None if since is None else since.replace(tzinfo=since.tzinfo or UTC)
        found = both.look(connection, client, key, most=most, since=start)
        document(_as_json(found)) if json else _show(found, anew)
        back = both.repair(connection, found, anew=anew) if repair else 0
        connection.commit()
        if repair and anew:
            found.stream.trim()
    if not json:
        _conclude(found, repair, back)
    if found.held if repair else not found.is_well:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(rich_help_panel="Look after")(reconcile)


def _as_json(found: "Found") -> dict[str, Any]:
    return {
        "well": found.is_well,
        "entries": found.entries,
        "unreadable": found.unreadable,
        "lost": len(found.lost),
        "lost_from": found.lost_from,
        "lost_to": found.lost_to,
        "held": len(found.held),
        "students": sorted(found.students),
        "courses": sorted(found.courses),
        "overlaps": found.overlaps,
        "published": len(found.published),
        "untold": len(found.untold),
        "ahead": found.ahead,
        "epoch": found.epoch._asdict(),
    }


def _show(found: "Found", anew: bool) -> None:
    stream, epoch = found.stream, found.epoch
    changed = [f"the timeline was {epoch.noted} and is {epoch.timeline}"] if epoch.noted != epoch.timeline else []
    changed += ["this is another cluster: a dump was loaded"] if epoch.moved else []
    fields(
        (
            ("stream", f"{number(found.entries, 'entry', 'entries')}, {found.unreadable:,} of them no event"),
            ("epoch", f"{epoch.epoch:x}, since {epoch.began_at:%Y-%m-%dT%H:%M:%SZ}"),
            ("database", "; ".join(changed) or "the same cluster and timeline"),
        )
    )
    gap()
    table(("found", "number", "what --repair does"), _steps(found, anew), folded=("what --repair does",))
    if found.held:
        _name(found)
    if not found.overlaps:
        note(
            f"The stream {stream.key} begins later than what the database knows: what was decided between is lost. "
            "Repair with --anew, and let producers send again what they sent from then on."
        )


def _steps(found: "Found", anew: bool) -> list[tuple[str, str, str]]:
    span = f", decided {found.lost_from:%Y-%m-%dT%H:%M:%SZ} to {found.lost_to:%H:%M:%SZ}" if found.lost_to else ""
    steps = [
        (f"commands that the database lost{span}", len(found.lost - found.held), "puts them back as their events say"),
        ("lost, of which the catalog lacks something", len(found.held), "nothing: load the catalog, then run it again"),
        ("batches in the outbox that are on the stream", len(found.published), "strikes them off"),
        ("commands whose events the stream lost", len(found.untold), "puts them into the outbox: workers publish them"),
        ("commands numbered by another cluster", found.ahead, "moves them to the beginning of the change feed"),
    ]
    shown = [(what, f"{count:,}", does if count else "-") for what, count, does in steps]
    if found.lost or found.ahead or found.epoch.moved or anew:
        shown.append(("cursors of the change feed", "all", "begins a new epoch: they are refused"))
    if anew:
        shown.append(("entries of the stream", f"{found.entries:,}", "trims them off: readers are told to begin anew"))
    return shown


def _name(found: "Found") -> None:
    missing = [
        f"{what} {', '.join(map(str, sorted(ids)[:10]))}"
        for what, ids in (("students", found.students), ("courses", found.courses))
        if ids
    ]
    note(f"The catalog lacks, among others, {' and '.join(missing)}.")


def _conclude(found: "Found", repair: bool, back: int) -> None:
    if repair:
        say(f"Done: {number(back, 'command')} put back, {number(len(found.untold), 'event')} to be published.")
    elif found.is_well:
        say("Database and stream agree. Nothing is to be done.")
    else:
        say("Nothing was changed. `enrollment reconcile --repair` does it.")
