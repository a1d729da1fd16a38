"""The verbs put together, and what every one of them has in common: help, errors in one sentence, exit codes."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker.cli import catalog, dead_letters, doctor, events, gateway, local, reading, send
from worker.cli.errors import sentence_of

_EPILOG = """Settings come from the environment: ENROLLMENT_DATABASE_URL, ENROLLMENT_BROKER_URL.
Tables become tab-separated lines where the output is no terminal; --json is for scripts.
Exit codes: 0 done, 1 failed or answered with no, 2 called wrongly."""


class Root(TyperGroup):
    """The outermost command: turns what goes wrong into one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        try:
            return super().main(*args, **extra)
        except Exception as error:
            sentence = sentence_of(error)
            if _debug or sentence is None:
                raise
            typer.echo(f"Error: {sentence}", err=True)
            sys.exit(1)


_debug = False

app = typer.Typer(
    cls=Root,
    name="enrollment",
    help="Send enrollment commands, read what came of them, look after the worker.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # flows the lines of a docstring together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ENROLLMENT_DEBUG", help="Show the whole traceback of an error.")
    ] = False,
) -> None:
    global _debug  # noqa: PLW0603 - errors are caught outside of everything that could hand it on
    _debug = debug


for module in (send, reading, events, dead_letters, catalog, doctor, gateway, local):
    module.register(app)
