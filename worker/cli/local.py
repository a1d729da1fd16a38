"""`enrollment demo` and `enrollment up`: everything on this machine, without anything installed but this project."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path | None, typer.Option("--folder", file_okay=False, help="Where data and logs are. Default: under .local.")
]


def demo(folder: Folder = None) -> None:
    """Start everything, empty, send commands, show what comes of them, stop: some 10 seconds."""
    from worker.local.demo import main

    raise typer.Exit(main(folder))


def up(folder: Folder = None) -> None:
    """Start PostgreSQL, Redis, a worker, beat, the gateway and Flower, and keep them running until Ctrl-C."""
    from worker.local.up import main

    raise typer.Exit(main(folder))


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    for verb in (demo, up):
        app.command(rich_help_panel="Try it")(verb)
