"""`enrollment events`: the result events, as they stand on the stream."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from worker.cli.output import STYLES, Json, console, note, printable

if TYPE_CHECKING:
    from redis import Redis

Entry = tuple[str, Mapping[str, str]]  # the entry's id, and its fields
_BLOCK: Final = 2000  # milliseconds that Redis holds a question open; less than the client waits for an answer
_PAGE: Final = 1000  # entries read at once
_SHOWN_IDS: Final = 8


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many of those there are.")] = 10,
    json: Json = False,
) -> None:
    """Show the newest result events, oldest first."""
    from worker.cli.connect import stream

    with stream() as (client, key):
        entries = _newest(client, key, last)
        for entry in entries:
            show(entry, json)
        if not follow:
            if not entries and last:
                note("There are no events yet.")
            return
        for entry in _following(client, key, entries[-1][0] if entries else None):
            show(entry, json)


def show(entry: Entry, json: bool) -> None:
    """Print one event: as it is, or as a line. Anyone who may write to the stream can put anything there."""
    from enrollment.consumer.reader import entry_of

    read = entry_of(*entry)
    if read.event is None:
        note(f"The entry {read.id} of the stream is no event that can be read here; it is left out.")
        return
    if json:
        typer.echo(read.text)
        return
    from rich.text import Text

    outcome, line = line_of(read.text)
    text = Text(line)
    text.highlight_words([outcome], style=STYLES.get(outcome, ""))
    console().print(text)


def line_of(event: str) -> tuple[str, str]:
    """Return an event's outcome, and all of it in a line."""
    from enrollment.commands import format_time
    from enrollment.events import Event

    it = Event.model_validate_json(event)
    data, outcome = it.data, it.type.split(".")[1]
    effects = [
        f"{name} {_ids(ids)}"
        for name in ("enrolled", "unenrolled", "unchanged", "superseded")
        if (ids := getattr(data, name))
    ]
    waits = [f"for {each.code} {_ids(each.ids)}".strip() for each in data.waiting_for]
    waits += [f"until {format_time(data.until)}"] if data.until else []
    waits += [f"of {data.target}"] if data.target else []
    came = effects or [error.code for error in data.errors] or waits or ["nothing to do"]
    student = "-" if data.student_id is None else data.student_id
    about = f"{data.command or ('invalid' if outcome == 'rejected' else '-')} student {student}"
    return outcome, printable(f"{it.time:%H:%M:%S} {outcome:8}  {about}: {'; '.join(came)}")


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(rich_help_panel="Watch")(events)


def _newest(client: "Redis", key: str, count: int) -> list[Entry]:
    if not count:
        return []
    return list(reversed(cast("list[Entry]", client.xrevrange(key, count=count))))


def _following(client: "Redis", key: str, after: str | None) -> Iterator[Entry]:
    position = after or _end(client, key)
    while True:
        client.xread({key: position}, count=1, block=_BLOCK)  # tells that there is something; the next line reads it
        for entry in cast("list[Entry]", client.xrange(key, min=f"({position}", count=_PAGE)):
            position = entry[0]
            yield entry


def _end(client: "Redis", key: str) -> str:
    newest = _newest(client, key, 1)
    return newest[0][0] if newest else "0-0"


def _ids(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return ", ".join(map(str, ids[:_SHOWN_IDS])) + more
