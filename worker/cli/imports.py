"""What the verbs of `worker.cli.importing` do, and what they print."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from threading import Event
from typing import Any, Final

import typer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from enrollment.client import BrokerAway
from models import import_rows, imports
from models.catalog import CatalogError
from models.db_errors import describe, is_outage
from models.engine import make_engine
from models.imports import ImportRecord
from tasks.imports import report
from tasks.imports import run as running
from tasks.imports import watch as watching
from tasks.imports.files import readable
from tasks.imports.formats.rows import FileError
from tasks.imports.plan import ImportRequest
from tasks.imports.report import Exit
from tasks.imports.start import start
from tasks.imports.undo import plan_undo
from worker.cli.connect import client_of_broker, database
from worker.cli.output import document, fields, gap, note, number, progress, say, table, whoami
from worker.cli.taking_up import PATIENCE, TakingUp, take_up_others
from worker.settings import Settings

_SURPRISES: Final = 10  # courses that a plan shows
_WORDS: Final = {
    "enroll": "to enroll",
    "unenroll": "to unenroll",
    "drop": "to unenroll, being absent",
    "withheld": "absent, left enrolled",
    "unchanged": "no change",
    "superseded": "older than what decided",
    "scheduled": "waits already",
    "waiting": "to wait for the catalog",
    "withdraw": "to withdraw",
    "repeated": "said by another row",
    "ignored": "none of ours",
    "rejected": "rejected",
}


@dataclass(frozen=True, slots=True)
class How:
    """What is wanted besides the import itself."""

    reports: tuple[Path, ...]
    wait: bool
    timeout: float
    json: bool

    def __post_init__(self) -> None:
        for path in self.reports:
            if path.suffix not in (".csv", ".json"):
                raise typer.BadParameter(f"{path} must end with .csv or .json", param_hint="--report")
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                hint = "say a path in a folder that is there and that you may write to"
                raise typer.BadParameter(f"{path} cannot be written; {hint}", param_hint="--report")


def run(
    path: Path, request: ImportRequest, how: How, *, format_name: str | None, as_dated: bool, dry_run: bool
) -> Exit:
    """Import a path, or plan it only."""
    with _engine() as engine:
        with progress("reading", shown=not how.json) as tell:
            begun = start(
                engine,
                path,
                request,
                format_name=format_name,
                as_dated=as_dated,
                at_once=not dry_run,
                policy=Settings.load().policy(),
                tell=tell,
            )
        for name in begun.left_out:
            note(f"{name} was left out.")
        if begun.resumed:
            note(f"Import {begun.import_id} of the same content was cut off; going on with it.")
        if dry_run:
            return _show_plan(engine, begun.import_id, how)
        return _finish(engine, begun.import_id, how, check=False)


def apply(import_id: int, how: How, *, again: bool) -> Exit:
    """Apply a plan, or go on with an import."""
    with _engine() as engine:
        return _finish(engine, import_id, how, check=True, again=again)


def undo(import_id: int, how: How, *, dry_run: bool) -> Exit:
    """Take an import back."""
    with _engine() as engine:
        plan = plan_undo(engine, import_id)
        return _show_plan(engine, plan, how) if dry_run else _finish(engine, plan, how, check=False)


def watch(
    folder: Path, request: ImportRequest, how: How, *, format_name: str | None, as_dated: bool, once: bool
) -> Exit:
    """Import what is put into a folder, until a signal ends it: at once, for what is cut off is taken up again."""
    stopped = Event()

    def end(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    how = replace(how, wait=True)  # a report without outcomes would be none
    with _engine() as engine, suppress(KeyboardInterrupt):

        def handle(path: Path) -> None:
            try:
                _import_watched(engine, path, request, how, format_name=format_name, as_dated=as_dated)
            except (BrokerAway, running.InProgress, running.NoOutcomes) as error:
                note(f"{path.name} stays where it is and is tried again: {error}")

        take_up = TakingUp(engine)

        def stop(seconds: float) -> bool:
            take_up.now_and_then()
            return stopped.wait(seconds)

        watching.watch(folder, handle, leave=_leave, once=once, stop=stop)
        if once:
            take_up.now()
    return Exit.FAILED if once and stopped.is_set() else Exit.DONE


def show_list(last: int, *, json: bool) -> None:
    """Print the newest imports."""
    with database() as connection:
        found = imports.newest(connection, limit=last)
    if json:
        for record in found:
            document(record._asdict())
        return
    rows = [(r.id, r.created_at, _state(r), r.format, r.source, _summary(r), r.path) for r in found]
    if rows:
        table(("id", "begun", "state", "format", "source", "rows", "file"), rows, folded=("file", "rows"))
    else:
        note("There are no imports.")


def show(import_id: int, how: How) -> None:
    """Print one import, and write its report."""
    with _engine() as engine:
        with engine.connect() as connection:
            record = imports.get(connection, import_id)
        _report(engine, record, how.reports)
        _show(engine, record, how)


def forget(import_id: int) -> None:
    """Delete an import."""
    with database() as connection:
        imports.get(connection, import_id)
        if not imports.forget(connection, import_id):
            raise FileError(f"Import {import_id} is under way; apply it first, or wait.")
    say(f"Import {import_id} is deleted; what it did stays.")


def _import_watched(
    engine: Engine, path: Path, request: ImportRequest, how: How, *, format_name: str | None, as_dated: bool
) -> None:
    """Import one path of a watched folder and move it. An outage leaves it where it is."""
    import_id: int | None = None
    try:
        policy = Settings.load().policy()
        begun = start(engine, path, request, format_name=format_name, as_dated=as_dated, at_once=True, policy=policy)
        import_id = begun.import_id
        record = _carry_out(engine, import_id, how, check=False, shown=False)
    except (FileError, CatalogError, PermissionError, SQLAlchemyError) as error:
        if is_outage(error):
            raise
        where = watching.target(path, import_id, failed=True)
        where.with_name(f"{where.name}.error.txt").write_text(f"{describe(error)}\n")
        path.rename(where)
        note(f"{path.name} failed: {describe(error)}")
        return
    failed = report.exit_code(record) is not Exit.DONE
    target = watching.target(path, import_id, failed=failed)
    _report(engine, record, (target.with_name(f"{target.name}.report.csv"),))
    path.rename(target)
    left_out = "".join(f" {name} was left out." for name in begun.left_out)
    note(f"{path.name}: import {import_id} {'failed in part' if failed else 'done'}, {_summary(record)}.{left_out}")


def _leave(path: Path) -> None:
    what = "it is no CSV file, zip or folder of CSV files, may not be read, or has too long a name"
    note(f"{readable(path.name)} is left where it is: {what}.")


def _finish(engine: Engine, import_id: int, how: How, *, check: bool, again: bool = False) -> Exit:
    record = _carry_out(engine, import_id, how, check=check, again=again, shown=not how.json)
    _report(engine, record, how.reports)
    _show(engine, record, how)
    return report.exit_code(record)


def _carry_out(
    engine: Engine, import_id: int, how: How, *, check: bool, shown: bool, again: bool = False
) -> ImportRecord:
    with progress("sending", shown=shown) as tell, client_of_broker(patience=PATIENCE) as client:
        running.apply(engine, import_id, client.bulk(), by=whoami(), check=check, again=again, tell=tell)
        others = take_up_others(engine, client)
    if how.wait:
        with progress("waiting for outcomes", shown=shown) as tell:
            record = running.settle(engine, import_id, patience=how.timeout, tell=tell)
            running.settle_others(engine, others, patience=how.timeout)
            return record
    with engine.connect() as connection:
        return imports.get(connection, import_id)


def _report(engine: Engine, record: ImportRecord, paths: tuple[Path, ...]) -> None:
    for path in paths:
        with engine.connect() as connection, path.open("w", encoding="utf-8", newline="") as stream:
            lines = report.lines(record, import_rows.report(connection, record.id))
            report.write(stream, "json" if path.suffix == ".json" else "csv", lines)


def _show_plan(engine: Engine, import_id: int, how: How) -> Exit:
    with engine.connect() as connection:
        record = imports.get(connection, import_id)
        courses = import_rows.surprising(connection, import_id, _SURPRISES)
    _report(engine, record, how.reports)
    _show(engine, record, how, courses)
    if not how.json:
        say(f"Nothing was sent. To do this: enrollment import --apply {import_id}")
    return report.exit_code(record)


def _show(engine: Engine, record: ImportRecord, how: How, courses: list[Any] | None = None) -> None:
    with engine.connect() as connection:
        reasons = import_rows.reasons(connection, record.id)
    if how.json:
        told = [dict(reason._mapping) for reason in reasons]  # noqa: SLF001 - SQLAlchemy's public name
        shown = [dict(course._mapping) for course in courses or ()]  # noqa: SLF001 - SQLAlchemy's public name
        document({**record._asdict(), "reasons": told, "courses": shown})
        return
    fields([(("plan" if record.state == "planned" else "import"), record.id), *_facts(record)])
    if courses:
        gap()
        columns = ("course", "now in", "enroll", "unenroll", "same", "wait", "aside", "withheld", "rejected")
        counts = attrgetter("members", "enroll", "unenroll", "unchanged", "waiting", "aside", "withheld", "rejected")
        rows = [(course.code or course.course, *counts(course)) for course in courses]
        table(columns, rows)
    for planned, code, count, file, line, message in reasons:
        first = "" if file is None else f"the first is {file}, line {line}: "
        say(f"{number(count, 'row')} {planned}, {code}; {first}{message}")
    if record.withheld:
        say(f"The absent are left enrolled: {record.withheld}")


def _facts(record: ImportRecord) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [("file", record.path), ("format", record.format), ("source", record.source)]
    facts += [("issued", record.issued_at), ("state", _state(record))]
    facts += [(f"  {_WORDS.get(name, name)}", f"{record.counts[name]:,}") for name in _WORDS if name in record.counts]
    facts += [("left out", name) for name in report.left_out(record)]
    return facts + [(f"came of it: {name}", f"{count:,}") for name, count in record.outcomes.items() if count]


def _state(record: ImportRecord) -> str:
    return f"undone by {record.undone_by}" if record.undone_by else record.state


def _summary(record: ImportRecord) -> str:
    counts = dict(record.outcomes or record.counts)
    if record.outcomes and record.counts.get("waiting"):
        counts["rows waiting for the catalog"] = record.counts["waiting"]
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"


@contextmanager
def _engine() -> Iterator[Engine]:
    engine = make_engine(Settings.load().require_database_url(), application_name="enrollment import")
    try:
        yield engine
    finally:
        engine.dispose()
