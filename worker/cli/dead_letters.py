"""`enrollment dead-letters`: the messages that became nothing, and why; and what is to become of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.output import Json, document, fields, gap, say, table, whoami

if TYPE_CHECKING:
    from enrollment.errors import DeadLetterCode
    from models.dead_letters import DeadLetter

verbs = typer.Typer(no_args_is_help=True, help="Messages that are no valid command, or could not be processed.")

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID…", help="Which; or use --code or --all.")]
Code = Annotated[str | None, typer.Option("--code", metavar="CODE", help="All open ones of one code.")]
All = Annotated[bool, typer.Option("--all", help="All open ones.")]


@verbs.command("list")
def list_(
    code: Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only those of one code.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=10_000, help="How many of the newest.")] = 10,
    json: Json = False,
) -> None:
    """Count the dead letters by code, and list the newest."""
    from models import dead_letters
    from worker.cli.connect import database

    only = _known(code)
    with database() as connection:
        counts = [count for count in dead_letters.counts(connection) if only in (None, count.code)]
        newest = dead_letters.newest(connection, code=only, limit=last)
    if json:
        by_code = {count.code: count.letters for count in counts}
        document({"counts": by_code, "newest": [_as_json(letter) for letter in newest]})
        return
    if not counts:
        say("There are no dead letters." if code is None else f"There are no dead letters with the code {code}.")
        return
    table(("code", "number", "newest"), counts)
    if newest:
        gap()
        rows = [(letter.id, letter.code, letter.message) for letter in newest]
        table(("id", "code", "reason"), rows, folded=("reason",))


@verbs.command()
def show(
    dead_letter_id: Annotated[int, typer.Argument(metavar="ID", help="The dead letter's id.")], json: Json = False
) -> None:
    """Show a dead letter with all that is known of its message."""
    from models import dead_letters
    from worker.cli.connect import database

    with database() as connection:
        letter = dead_letters.get(connection, dead_letter_id)
    if json:
        document(_as_json(letter))
    else:
        fields((name.replace("_", " "), value) for name, value in _as_json(letter).items() if value is not None)


@verbs.command()
def replay(
    ids: Ids = None,
    code: Code = None,
    all_: All = False,
    payload: Annotated[
        Path | None,
        typer.Option("--payload", metavar="FILE", help="JSON to send in place of its own; for a single one."),
    ] = None,
    json: Json = False,
) -> None:
    """Send the commands of dead letters through the queue again, as they are or corrected.

    They keep the time at which they were issued, so they undo nothing that came later. What cannot be replayed as it
    is, is listed and stays.
    """
    from tasks.replay import CannotReplay, Replayed
    from worker.replayer import replayer

    chosen = _chosen(ids, code, all_)
    if payload is not None and len(chosen) != 1:
        raise typer.BadParameter("--payload goes with a single dead letter.")
    text = None if payload is None else payload.read_text(encoding="utf-8")
    done: list[Replayed] = []
    refused: list[CannotReplay] = []
    with replayer(whoami()) as again:
        for dead_letter_id in chosen:
            try:
                done.append(again(dead_letter_id, text))
            except CannotReplay as error:
                refused.append(error)
    if json:
        replayed = {each.dead_letter_id: [str(id_) for id_ in each.command_ids] for each in done}
        document({"replayed": replayed, "refused": {each.dead_letter_id: each.reason for each in refused}})
    else:
        for each in done:
            say(f"{each.dead_letter_id}: sent as {', '.join(map(str, each.command_ids)) or 'nothing, it was decided'}")
        for refusal in refused:
            say(str(refusal))
    raise typer.Exit(1 if refused else 0)


@verbs.command()
def discard(ids: Ids = None, code: Code = None, all_: All = False, json: Json = False) -> None:
    """Decide that nothing is to come of dead letters. They are kept, and no longer listed."""
    from models import dead_letters
    from worker.cli.connect import database

    chosen = _chosen(ids, code, all_)
    with database() as connection:
        count = dead_letters.discard(connection, chosen, by=whoami())
    if json:
        document({"discarded": count})
    else:
        say(f"Discarded {count} of {len(chosen)}.")


def _chosen(ids: list[int] | None, code: str | None, all_: bool) -> list[int]:
    from models import dead_letters
    from worker.cli.connect import database

    if sum((bool(ids), code is not None, all_)) != 1:
        raise typer.BadParameter("Say which: ids, or --code CODE, or --all.")
    if ids:
        return ids
    only = _known(code)
    with database() as connection:
        return dead_letters.open_ids(connection, code=only)


def _known(code: str | None) -> "DeadLetterCode | None":
    from enrollment.errors import DeadLetterCode  # here, because it brings pydantic, for which --help shall not wait

    if code is None:
        return None
    try:
        return DeadLetterCode(code)
    except ValueError:
        raise typer.BadParameter(f"{code!r} is none of {', '.join(DeadLetterCode)}", param_hint="--code") from None


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(verbs, name="dead-letters", rich_help_panel="Watch")


def _as_json(letter: "DeadLetter") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(letter)
