"""Sending a file of commands: what is on its lines, how far it has got, and what was wrong."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from enrollment.client import BrokerAway, Bulk, Client, InvalidCommand, read_command
from worker.cli.output import note, number
from worker.settings import Settings

if TYPE_CHECKING:
    from enrollment.commands import Command

PATIENCE: Final = 10.0  # seconds for a broker that is away; half a file is sent, so it is worth waiting
_STEP: Final = 1000  # lines between two looks at the progress bar

Tell = Callable[[int, int], None]  # how many bytes were read, and commands sent


@dataclass
class Report:
    """What came of a file."""

    sent: int = 0
    messages: int = 0
    seconds: float = 0.0
    invalid: list[tuple[int, str]] = field(default_factory=list)

    def summary(self) -> str:
        """Return it as a sentence."""
        rate = f", {self.sent / self.seconds:,.0f} a second" if self.sent >= _STEP and self.seconds else ""
        sent = f"Sent {number(self.sent, 'command')} in {number(self.messages, 'message')}{rate}."
        return f"{sent} Left out {number(len(self.invalid), 'line')}." if self.invalid else sent

    def as_json(self) -> dict[str, Any]:
        """Return it as the object that JSON has for it."""
        invalid = [{"line": line, "reason": reason} for line, reason in self.invalid]
        return {"sent": self.sent, "messages": self.messages, "seconds": round(self.seconds, 3), "invalid": invalid}


def send_lines(path: str, *, progress: bool) -> Report:
    """Send each line of the file (`-`: of standard input) that is a command; tell of the others on standard error.

    Raises BrokerAway, after having told up to which line all commands were sent.
    """
    report, start, last = Report(), perf_counter(), 0
    settings = Settings.load()
    options = settings.transport_options()
    with (
        _opened(path) as (lines, size),
        _progress(size, shown=progress) as tell,
        Client(settings.require_broker_url(), patience=PATIENCE, transport_options=options) as client,
    ):
        bulk = client.bulk()
        try:
            for line, command in _commands(lines, report, bulk, tell):
                waiting = bulk.waiting
                bulk.send(command)
                if bulk.waiting <= waiting:  # what was gathered before this line has left
                    last = line - 1
            bulk.flush()
        except BrokerAway:
            sent = f"{number(bulk.sent, 'command')} had been sent before, all those up to line {last}"
            note(f"{sent}." if bulk.sent else "No command had been sent before.")
            raise
    report.sent, report.messages, report.seconds = bulk.sent, bulk.messages, perf_counter() - start
    return report


def _commands(lines: BinaryIO, report: Report, bulk: Bulk, tell: Tell) -> "Iterator[tuple[int, Command]]":
    read = 0
    for line, text in enumerate(lines, 1):
        read += len(text)
        if line % _STEP == 0:
            tell(read, bulk.sent + bulk.waiting)
        if not text.strip():
            continue
        try:
            yield line, _command(text)
        except InvalidCommand as error:
            report.invalid.append((line, str(error)))
            note(f"line {line}: {error}")
    tell(read, bulk.sent + bulk.waiting)


def _command(text: bytes) -> "Command":
    try:
        item = json.loads(text.removeprefix(b"\xef\xbb\xbf"))  # a byte order mark, as some programs write
    except (ValueError, RecursionError) as error:
        raise InvalidCommand(f"This is not JSON: {error}.") from None
    if not isinstance(item, dict):
        raise InvalidCommand("This is JSON, but not an object.")
    return read_command(item)


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    if path == "-":
        yield sys.stdin.buffer, None
        return
    with Path(path).open("rb") as lines:
        yield lines, Path(path).stat().st_size or None


@contextmanager
def _progress(size: int | None, *, shown: bool) -> Iterator[Tell]:
    """Show how far it has got, on a terminal. What is printed to standard error meanwhile stands above the bar."""
    if not shown or not sys.stderr.isatty():
        yield lambda _bytes, _commands: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[commands]:,} commands, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, start = bar.add_task("send", total=size, commands=0, rate=0), perf_counter()

        def tell(done: int, commands: int) -> None:
            bar.update(task, completed=done, commands=commands, rate=commands / (perf_counter() - start))

        yield tell
