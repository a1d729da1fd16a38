"""The verbs put together, and what every one of them has in common: help, errors in one sentence, exit codes."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker.cli import (
    audit,
    catalog,
    dead_letters,
    doctor,
    events,
    exporter,
    gateway,
    importing,
    local,
    lookups,
    migrate,
    privacy,
    privileges,
    reconcile,
    retention,
    send,
    waiting,
)

_HEADINGS = ("Send", "Read", "Watch", "Look after", "Try it", "Serve")
_WHOLE = 200  # characters; what does not fit on a line goes on in the next
_EPILOG = """\b
Settings come from the environment: ENROLLMENT_DATABASE_URL, ENROLLMENT_BROKER_URL.
Tables become tab-separated lines where the output is no terminal; --json is for scripts.
Exit codes: 0 done, 1 failed or answered with no, 2 called wrongly."""


class Root(TyperGroup):
    """The outermost command: turns what goes wrong into one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        try:
            return super().main(*args, **extra)
        except Exception as error:
            from worker.cli.errors import sentence_of  # brings pydantic, for which --help shall not wait

            sentence = sentence_of(error)
            if _debug or sentence is None:
                raise
            typer.echo(f"Error: {sentence}", err=True)
            sys.exit(1)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs below the headings that they were added with."""
        verbs = [self.commands[name] for name in self.list_commands(ctx)]
        widest = max(len(verb.name or "") for verb in verbs)
        for heading in _HEADINGS:
            with formatter.section(heading):
                rows = (
                    (f"{verb.name:{widest}}", verb.get_short_help_str(limit=_WHOLE))
                    for verb in verbs
                    if getattr(verb, "rich_help_panel", None) == heading
                )
                formatter.write_dl(list(rows))


_debug = False

app = typer.Typer(
    cls=Root,
    name="enrollment",
    help="Send enrollment commands, read what came of them, look after the worker.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: what draws it in frames takes longer to import than all else
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"enrollment-worker {version('enrollment-worker')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ENROLLMENT_DEBUG", help="Show the whole traceback of an error.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    global _debug  # noqa: PLW0603 - errors are caught outside of everything that could hand it on
    _debug = debug


for module in (
    send,
    importing,
    lookups,
    events,
    dead_letters,
    waiting,
    audit,
    catalog,
    retention,
    reconcile,
    migrate,
    doctor,
    gateway,
    exporter,
    privacy,
    privileges,
    local,
):
    module.register(app)
