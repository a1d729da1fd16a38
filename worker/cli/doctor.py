"""`enrollment doctor`: is everything there, and set up so that nothing gets lost?"""

import typer

from worker.cli.output import Json, document, say, shown, styled


def doctor(json: Json = False) -> None:
    """Check database, broker, event stream and workers, and tell what to do; exit code 1 if something fails."""
    from dataclasses import asdict

    from worker.cli.checks import findings

    failed = warned = 0
    for finding in findings():
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
