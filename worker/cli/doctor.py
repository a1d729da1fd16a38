"""`enrollment doctor`: is everything there, and set up so that nothing gets lost?"""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.output import Json, document, say, shown, styled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.health import Finding


def doctor(
    json: Json = False,
    live: Annotated[
        bool, typer.Option("--live", help="Only: do the workers on this machine take and finish work?")
    ] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Only: do they take messages, and is there what they need?")
    ] = False,
) -> None:
    """Check database, broker, event stream and workers, and tell what to do; exit code 1 if something fails."""
    from dataclasses import asdict

    if live and ready:
        raise typer.BadParameter("--live and --ready are two questions; ask one at a time")
    failed = warned = 0
    for finding in _asked(live, ready):
        failed += finding.status == "fail"
        warned += finding.status == "warn"
        if json:
            document(asdict(finding))
        else:
            _show(finding.status, finding.name, finding.message, finding.advice)
    if not json:
        say(f"{_many(failed, 'failure')}, {_many(warned, 'warning')}.")
    if failed:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(rich_help_panel="Look after")(doctor)


def _asked(live: bool, ready: bool) -> "Iterator[Finding]":
    if live or ready:
        from worker.cli import probes

        return probes.live() if live else probes.ready()
    from worker.checks import findings

    return findings()


def _show(status: str, name: str, message: str, advice: str) -> None:
    import sys

    if not sys.stdout.isatty():
        typer.echo("\t".join(map(shown, (status, name, message, advice))))
        return
    from rich.table import Table

    from worker.cli.output import console

    line = Table.grid(padding=(0, 2))
    line.add_column(width=4)
    line.add_column(width=12)
    line.add_column(overflow="fold")
    line.add_row(styled(status), shown(name), f"{shown(message)}{'. ' + shown(advice) if advice else ''}")
    console().print(line)


def _many(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
