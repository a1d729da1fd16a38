"""Applying a plan: its rows sent as commands, and their outcomes waited for. May be killed anywhere and goes on."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Protocol, cast
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from enrollment.commands import Command, Enroll, Unenroll, Withdraw
from enrollment.errors import EnrollmentError
from models import audit, import_snapshots, import_waits, imports, planning
from models.imports import ImportRecord, Outgoing
from tasks.imports.plan import Tell, by_role, load_catalog, named_by

PAUSE: Final = 0.3  # seconds between two looks for outcomes
PATIENCE: Final = 5.0  # seconds for who looks at an import for a moment: whether rows of it wait no longer
_COUNTED: Final = ("enrolled", "unenrolled", "unchanged", "superseded", "rejected", "waiting", "withdrawn", "dead")


class Moved(EnrollmentError):
    """What the plan was made over is no longer so."""

    def __init__(self, plan: ImportRecord) -> None:
        again = "Plan the file again" if plan.undo_of is None else f"Say `enrollment import undo {plan.undo_of}` again"
        super().__init__(
            f"Plan {plan.id} was not applied: enrollments have changed since it was made, and it would do something "
            f"else now. {again}, and apply that."
        )


class InProgress(EnrollmentError):
    """Somebody else is at it."""

    def __init__(self, import_id: int) -> None:
        super().__init__(f"Import {import_id} is being applied by another process; wait for that one.")


class NoOutcomes(EnrollmentError):
    """Commands are sent, and nothing comes of them."""

    def __init__(self, import_id: int, seconds: float) -> None:
        super().__init__(
            f"All of import {import_id} is sent, and no outcome came for {seconds:.0f} s. See that a worker runs "
            f"(`enrollment doctor`), then say `enrollment import --apply {import_id}`: nothing is done twice. If the "
            "broker has lost its queues, add `--again`: what has no outcome is sent once more."
        )


class Sender(Protocol):
    """What takes commands, such as `Client.bulk()`."""

    def send(self, command: Command | Withdraw) -> UUID:
        """Take a command."""

    def flush(self) -> None:
        """Have all that was taken on the queue."""


def apply(
    engine: Engine,
    import_id: int,
    sender: Sender,
    *,
    by: str,
    check: bool,
    again: bool = False,
    tell: Tell = lambda *_: None,
    patience: float = PATIENCE,
) -> None:
    """Send what was planned; with `check`, only if it still would come out like that.

    With `again`, what was sent and has no outcome is sent once more: the broker has lost it.

    Raises UnknownImport, Moved, InProgress.

    `by` is who says so, for the audit. Somebody else who is at it is waited for, `patience` seconds.

    An import that was begun before goes on where that ended. What was on its way then is sent again under its id, and
    takes effect once.
    """
    with engine.connect() as connection:
        imports.get(connection, import_id)  # there is one
        _lock(connection, import_id, patience)
        connection.commit()  # the lock is the session's
        try:
            again = again and _go_back(engine, connection, import_id)
            record = imports.get(connection, import_id)
            if record.state == "planned":
                _begin(engine, connection, record, by, check=check)
                record = imports.get(connection, import_id)
            elif record.state != "sending":
                record = _look_again(connection, record, by)
            while record.state == "sending":
                _send(connection, record, sender, tell, again=again)
                record = _look_again(connection, imports.get(connection, import_id), by)
        finally:
            connection.invalidate()  # the lock ends with the session


def take_up(engine: Engine, sender: Sender, *, by: str) -> list[int]:
    """Send what waited in imports for the catalog, and is there now; return the imports that now wait for outcomes.

    What one import meets keeps none of the others from theirs, nor from theirs whoever called this.
    """
    with engine.connect() as connection:
        found = import_waits.imports(connection)
    taken: list[int] = []
    for import_id in found:
        try:
            apply(engine, import_id, sender, by=by, check=False, patience=0)
            with engine.connect() as connection:
                if imports.get(connection, import_id).state == "sent":
                    taken.append(import_id)
        except (InProgress, imports.UnknownImport, SQLAlchemyError):
            continue  # its rows wait on, and `--apply` says why
    return taken


def settle_others(engine: Engine, import_ids: Iterable[int], *, patience: float) -> None:
    """Wait for the outcomes of what `take_up` sent, as far as they come."""
    for import_id in import_ids:
        with suppress(NoOutcomes, imports.UnknownImport):
            settle(engine, import_id, patience=patience)


def is_settled(engine: Engine, import_id: int) -> bool:
    """Tell whether all that an import sent has its outcome by now, though nobody has waited for that."""
    with engine.connect() as connection:
        if imports.get(connection, import_id).state != "sent":
            return False
    with suppress(NoOutcomes):
        settle(engine, import_id, patience=0)
        return True
    return False


def settle(
    engine: Engine,
    import_id: int,
    *,
    patience: float,
    tell: Tell = lambda *_: None,
    sleep: Callable[[float], None] = time.sleep,
) -> ImportRecord:
    """Wait until every command has an outcome; return the import with its counts. Raises NoOutcomes."""
    seen, since = None, time.monotonic()
    with engine.connect() as connection:
        while (record := imports.get(connection, import_id)).state != "done":
            connection.commit()
            if seen != (record.state, record.sent):
                seen, since = (record.state, record.sent), time.monotonic()
            elif time.monotonic() - since > patience:  # whoever sends more of it has ended
                raise NoOutcomes(import_id, patience)
            else:
                sleep(PAUSE)
            _settle(connection, record, patience, tell, sleep)
            connection.commit()
        return record


def _settle(
    connection: Connection, record: ImportRecord, patience: float, tell: Tell, sleep: Callable[[float], None]
) -> None:
    import_id = record.id
    after, counted = record.decided, dict(record.outcomes)
    done = imports.count_sent(connection, import_id, after)
    seen, since = (-1, -1), time.monotonic()
    while True:
        found = imports.outcomes(connection, import_id, after, record.sent)
        if found["number"] is None:
            break
        tell(done + found["rows"] - found["missing"], record.to_send)
        if not found["missing"]:
            after, done = found["number"], done + found["rows"]
            counted = {name: counted.get(name, 0) + found[name] for name in _COUNTED}
            imports.keep_decided(connection, import_id, after, counted)
        connection.commit()
        if (now := (after, found["missing"])) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            raise NoOutcomes(import_id, patience)
        if found["missing"]:
            sleep(PAUSE)
    if imports.finish(connection, import_id, record.sent):
        imports.forget_entries(connection, import_id)


def _go_back(engine: Engine, connection: Connection, import_id: int) -> bool:
    """Have all rows sent once more after the last one up to which each has an outcome; tell whether any were sent."""
    if is_settled(engine, import_id) or (record := imports.get(connection, import_id)).state not in ("sending", "sent"):
        return False
    planning.be_patient(connection)
    imports.enter(connection, import_id, "sending")
    imports.keep_sent(connection, import_id, record.decided)
    if import_snapshots.leave_out_absent(connection, import_id, record.decided):
        imports.keep_plan(connection, import_id, planning.counts(connection, import_id), record.withheld)
    connection.commit()
    return True


def _begin(engine: Engine, connection: Connection, record: ImportRecord, by: str, *, check: bool) -> None:
    if record.undo_of is not None:
        _hold_undone(connection, record, record.undo_of)
    planning.be_patient(connection)
    if check:
        planning.resolve(connection, record.id)
        scope = cast(import_snapshots.Scope | None, None if record.withheld else record.scope)
        more = scope is not None and import_snapshots.more_are_absent(connection, record.id, scope, record.issued_at)
        if more or planning.has_moved(connection, record.id):
            raise Moved(record)
    load_catalog(engine, connection, record.id, by_role=by_role(record))
    planning.resolve(connection, record.id)
    import_waits.look(connection, record.id)
    if record.undo_of is not None:
        import_waits.withdraw(connection, record.undo_of)
        undone = imports.get(connection, record.undo_of)
        imports.keep_plan(connection, undone.id, planning.counts(connection, undone.id), undone.withheld)
    planning.reject_unresolved(connection, record.id)
    if record.scope is not None:
        import_snapshots.keep_scope(connection, record.id)
    counts = planning.counts(connection, record.id)
    imports.keep_plan(connection, record.id, counts, record.withheld)
    imports.enter(connection, record.id, "sending")
    audit.add(connection, by, audit.IMPORTED, [audit.import_(record.id)], detail={"rows": sum(counts.values())})
    connection.commit()


def _hold_undone(connection: Connection, record: ImportRecord, import_id: int) -> None:
    """See that nothing more of an import is sent while it is undone. Raises InProgress, Moved."""
    _lock(connection, import_id, PATIENCE)
    undone = imports.get(connection, import_id)
    as_planned = (undone.state, undone.sent) == ("done", record.options.get("sent", undone.sent))
    if not as_planned or undone.undone_by is not None:
        raise Moved(record)


def _lock(connection: Connection, import_id: int, patience: float) -> None:
    """Become the only one who applies an import. Raises InProgress."""
    until = time.monotonic() + patience
    while not imports.lock(connection, import_id):
        if time.monotonic() > until:
            raise InProgress(import_id)
        time.sleep(PAUSE)


def _look_again(connection: Connection, record: ImportRecord, by: str) -> ImportRecord:
    waiting = record.counts.get("waiting", 0)
    if not waiting:
        return record
    planning.be_patient(connection)
    if import_waits.look(connection, record.id):
        counts = planning.counts(connection, record.id)
        imports.keep_plan(connection, record.id, counts, record.withheld)
        imports.enter(connection, record.id, "sending")
        rows = waiting - counts.get("waiting", 0)
        audit.add(connection, by, audit.TAKEN_UP, [audit.import_(record.id)], detail={"rows": rows})
        connection.commit()
    return imports.get(connection, record.id)


def _send(connection: Connection, record: ImportRecord, sender: Sender, tell: Tell, *, again: bool) -> None:
    after, done = record.sent, imports.count_sent(connection, record.id, record.sent)
    while rows := imports.to_send(connection, record.id, after, again=again):
        connection.commit()
        for row in rows:
            if not row.has_outcome:
                sender.send(_command(row, record))
        sender.flush()
        after, done = rows[-1].number, done + len(rows)
        imports.keep_sent(connection, record.id, after)
        connection.commit()
        tell(done, record.to_send)
    imports.enter(connection, record.id, "sent")
    connection.commit()


def _command(row: Outgoing, record: ImportRecord) -> Command | Withdraw:
    if row.target is not None:
        return Withdraw(command_id=row.command_id, target=row.target, source=record.source)
    kind = Enroll if row.asked == "enroll" else Unenroll
    assert row.student_id is not None and row.course_id is not None  # noqa: S101, PT018 - else it would be rejected
    return kind(
        student_id=row.student_id,
        course_ids=(row.course_id,),
        issued_at=row.issued_at,
        effective_at=row.effective_at,
        wait_until=record.wait_of(row.effective_at) if named_by(record) == "id" else None,
        source=record.source,
        command_id=row.command_id,
    )
