"""What verbs print: tables on a terminal, tab-separated lines elsewhere, JSON where asked for."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

STYLES: Final[Mapping[str, str]] = {
    "applied": "green",
    "rejected": "red",
    "waiting": "cyan",
    "withdrawn": "yellow",
    "enrolled": "green",
    "unenrolled": "yellow",
    "superseded": "magenta",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}


def console() -> "Console":
    """Return where answers go: no colours and no cutting off unless it is a terminal; NO_COLOR is honoured."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def document(value: object) -> None:
    """Print one JSON document on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def note(message: str) -> None:
    """Tell the person something that is no part of the answer."""
    print(message, file=sys.stderr)  # noqa: T201 - not typer.echo, which a progress bar cannot step aside for


def say(message: str) -> None:
    """Print one line of the answer."""
    typer.echo(printable(message))


def whoami() -> str:
    """Return who runs this, as the audit names them: the account of the system."""
    from getpass import getuser

    return f"cli/{getuser()}"


def gap() -> None:
    """Keep two tables apart, where a person reads them."""
    if sys.stdout.isatty():
        typer.echo("")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, folded: Sequence[str] = ()) -> None:
    """Print rows: aligned and within its width on a terminal. The columns `folded` take what room is left."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(map(shown, row)))
        return
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column not in folded)
    for row in rows:
        drawn.add_row(*map(styled, row))
    console().print(drawn)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    if not sys.stdout.isatty():
        for name, value in pairs:
            typer.echo(f"{name}\t{shown(value)}")
        return
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(name, styled(value))
    console().print(drawn)


def styled(value: object) -> "Text":
    """Return a value as a terminal shows it; a known word has its colour."""
    from rich.text import Text

    text = shown(value)
    return Text(text, style=STYLES.get(text, ""))


def shown(value: object) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "-"
    return printable(str(value))


def moment(value: datetime) -> str:
    """Return a time as events have it, to the second: RFC 3339, in UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def printable(text: str) -> str:
    """Return foreign text without what would steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def number(count: int, noun: str, nouns: str | None = None) -> str:
    """Return `1 command`, `2,000 commands`; `nouns` is a plural that does not end in a mere s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def as_json(value: Any) -> Any:
    """Return a named tuple as the object that JSON has for it."""
    return value._asdict()


@contextmanager
def progress(what: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how far something has got, with its rate and the time left, on a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:,.0f}/s")
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, begun = bar.add_task(what, total=None, rate=0), perf_counter()

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, rate=done / max(perf_counter() - begun, 0.001))

        yield tell
