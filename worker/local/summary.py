"""What the demo shows at its end: what was sent, what came of it, and how to go on."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from enrollment.commands import format_time
from enrollment.names import STREAM
from models import dead_letters, queries
from models.dead_letters import DeadLetter
from models.queries import HistoryEntry
from worker.cli.events import line_of
from worker.cli.output import number
from worker.local.scenario import EXPECTED, LATE_COURSE, LATE_STUDENT, PARTS, Numbers, Part

_SHOWN: Final = 3  # events
_STUDENTS: Final = 1000  # more than the catalog has


@dataclass(frozen=True)
class Summary:
    """What was found when all was done."""

    found: Numbers
    seconds: float  # from the first message until all were processed
    events: list[str]
    late: list[HistoryEntry]
    letters: list[DeadLetter]


def collect(connection: Connection, redis: Redis, *, seconds: float) -> Summary:
    """Count, and pick what is worth showing."""
    events = [entry["event"] for _, entry in cast("list[tuple[str, dict[str, str]]]", redis.xrange(STREAM))]
    data = [json.loads(event) for event in events]
    outcomes = Counter(event["type"].split(".")[1] for event in data)
    students = queries.students_with_courses(connection, limit=_STUDENTS).items
    found = Numbers(
        applied=outcomes["applied"],
        rejected=outcomes["rejected"],
        rows=sum(len(student.courses) for student in students),
        superseded=sum(len(event["data"]["superseded"]) for event in data),
        dead_letters={count.code: count.letters for count in dead_letters.counts(connection)},
    )
    late = queries.history(connection, LATE_STUDENT, LATE_COURSE)
    return Summary(found, seconds, events, late, dead_letters.newest(connection))


def show(console: Console, summary: Summary, *, seconds: float) -> None:
    """Print it all."""
    _title(console, "What was sent, and what came of it")
    console.print(_parts())
    _title(console, "A rejected command says what to do")
    console.print(_rejected(summary.events))
    _title(console, "A late command does not undo a newer one")
    _late(console, summary.late)
    _title(console, "What is no command is kept as a dead letter, with the reason")
    console.print(_letters(summary.letters))
    _title(console, f"The last of {len(summary.events)} events on the stream")
    for event in summary.events[-_SHOWN:]:
        console.print(Text(" " + line_of(event)[1]), overflow="fold")
    _title(console, "Counted")
    console.print(_numbers(summary.found))
    _verdict(console, summary, seconds)


def _title(console: Console, title: str) -> None:
    console.print(f"\n[bold]{title}[/]")


def _parts() -> Table:
    table = _table("", "messages", "come to")
    for part in PARTS:
        table.add_row(str(part.messages), part.title, _came(part))
    table.columns[0].justify = "right"
    return table


def _came(part: Part) -> str:
    counts = [(part.applied, "applied"), (part.rejected, "rejected"), (part.superseded, "superseded")]
    said = [f"{count} {word}" for count, word in counts if count]
    if part.rows:
        said.append(number(part.rows, "row"))
    if part.dead:
        said.append(number(len(part.dead), "dead letter"))
    return ", ".join(said) or "nothing: once is enough"


def _rejected(events: Sequence[str]) -> Padding:
    errors = (error for event in events for error in json.loads(event)["data"]["errors"])
    error: dict[str, Any] = next(error for error in errors if error["code"] == "unknown_courses")
    return Padding(Text(f"{error['code']}: {error['message']}"), (0, 1))


def _late(console: Console, entries: Sequence[HistoryEntry]) -> None:
    table = _table("issued", "command", "came to", "")
    for entry in entries:
        issued = entry.record.issued_at
        table.add_row(
            "" if issued is None else format_time(issued)[11:19],
            str(entry.record.command),
            entry.effect or entry.record.outcome,
            _mark(entry),
        )
    console.print(table)
    console.print(f" [dim]That is what `enrollment history {LATE_STUDENT} {LATE_COURSE}` shows.[/]")


def _mark(entry: HistoryEntry) -> str:
    if entry.owns:
        return "the newest: it decides"
    return "came last, and changes nothing" if entry.effect == "superseded" else ""


def _letters(letters: Sequence[DeadLetter]) -> Table:
    table = _table("code", "reason")
    table.columns[1].no_wrap = False
    for letter in letters:
        table.add_row(letter.code, Text(letter.message, overflow="fold"))
    return table


def _numbers(found: Numbers) -> Table:
    table = _table("", "expected", "found", "")
    for name, expected, here in (
        ("commands applied", EXPECTED.applied, found.applied),
        ("commands rejected", EXPECTED.rejected, found.rejected),
        ("enrollments (rows of student_courses)", EXPECTED.rows, found.rows),
        ("superseded effects", EXPECTED.superseded, found.superseded),
        ("dead letters", dict(EXPECTED.dead_letters), dict(found.dead_letters)),
    ):
        right = expected == here
        table.add_row(name, _total(expected), _total(here), "[green]✓[/]" if right else "[bold red]✗[/]")
    for column in table.columns[1:3]:
        column.justify = "right"
    return table


def _total(count: int | dict[str, int]) -> str:
    return str(sum(count.values()) if isinstance(count, dict) else count)


def _verdict(console: Console, summary: Summary, seconds: float) -> None:
    if summary.found != EXPECTED:
        console.print("[bold red]The numbers are not what they must be.[/]")
        return
    console.print(f"[bold green]Every command took effect exactly once.[/] All of it took {seconds:.0f} s.\n")
    console.print("[bold]How to go on[/]")
    table = Table.grid(padding=(0, 2))
    for command, what in (
        ("  enrollment up", "the same, kept running, for trying the commands"),
        ("  enrollment --help", "all of them; `doctor` checks a set-up"),
        ("  celery -A worker worker", "a worker for servers of your own"),
    ):
        table.add_row(f"[cyan]{command}[/]", what)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for column in columns:
        table.add_column(column)
    return table
