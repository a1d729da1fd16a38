"""Imports: what was planned, how far each has got, and what came of its rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.errors import EnrollmentError
from models.arrays import quoted

PAGE: Final = 5000  # rows in one round trip
SENT: Final = "('enroll', 'unenroll', 'unchanged', 'withdraw')"  # what is planned of the rows that are sent
# A file that came twice has the same commands. What these changed is not the second import's.
REPEATS: Final = "(k.processed_at < i.created_at AND (k.enrolled <> '{}' OR k.unenrolled <> '{}'))"
_FIELDS: Final = """id, state, path, files, format, digest, source, options, scope, issued_at, counts, withheld,
    outcomes, sent, decided, undo_of, created_at, finished_at,
    (SELECT max(undo.id) FROM imports AS undo
      WHERE undo.undo_of = imports.id AND undo.state <> 'planned') AS undone_by"""

_CREATE: Final = text("""
    INSERT INTO imports (state, path, files, format, digest, source, options, scope, issued_at, counts, outcomes,
                         undo_of)
    VALUES ('planned', :path, CAST(:files AS text[]), :format, :digest, :source, CAST(:options AS jsonb), :scope,
            :issued_at, '{}', '{}', :undo_of) RETURNING id
""")
_KEEP: Final = text("UPDATE imports SET counts = CAST(:counts AS jsonb), withheld = :withheld WHERE id = :id")
_ONE: Final = text(f"SELECT {_FIELDS} FROM imports WHERE id = CAST(:id AS bigint)")
_NEWEST: Final = text(f"""
    SELECT {_FIELDS} FROM imports WHERE id < coalesce(CAST(:before AS bigint), 9223372036854775807)
     ORDER BY id DESC LIMIT CAST(:limit AS bigint)
""")
_UNFINISHED: Final = text("""
    SELECT id FROM imports
     WHERE digest = :digest AND source = :source AND options = CAST(:options AS jsonb) AND state IN ('sending', 'sent')
     ORDER BY id DESC LIMIT 1
""")
_STATE: Final = text("UPDATE imports SET state = :state, finished_at = NULL WHERE id = :id")
# Rows that waited for the catalog may have been sent meanwhile: then it is not done.
_DONE: Final = text("""
    UPDATE imports SET state = 'done', finished_at = clock_timestamp()
     WHERE id = :id AND state = 'sent' AND sent = :sent
""")
_CLOCK: Final = text("SELECT clock_timestamp()")
# What retention has removed the record of would be rejected now, and told a second time.
_TO_SEND: Final = text(f"""
    SELECT r.number, r.asked, r.student_id, r.course_id, r.issued_at, r.effective_at, r.command_id, r.target,
           CASE WHEN CAST(:again AS boolean)
                THEN EXISTS (SELECT FROM commands WHERE command_id = r.command_id)
                  OR EXISTS (SELECT FROM dead_letters WHERE command_id = r.command_id)
                  OR EXISTS (SELECT FROM retention WHERE forgotten_before
                                    > greatest(i.created_at, coalesce(r.effective_at, r.issued_at)))
                ELSE false END AS has_outcome
      FROM import_rows AS r JOIN imports AS i ON i.id = r.import_id
     WHERE r.import_id = :id AND r.number > :after AND r.planned IN {SENT} ORDER BY r.number LIMIT :limit
""")
_SENT_TO: Final = text("UPDATE imports SET sent = :number WHERE id = :id")
_TOTAL: Final = text(f"""
    SELECT count(*) FROM import_rows WHERE import_id = :id AND number <= :number AND planned IN {SENT}
""")
# A command whose message became a dead letter has no outcome, and will have none by itself.
_OUTCOMES: Final = text(f"""
    SELECT max(r.number) AS number, count(*) AS rows,
           count(*) FILTER (WHERE k.command_id IS NULL AND d.code IS NULL) AS missing,
           count(*) FILTER (WHERE k.enrolled <> '{{}}' AND NOT {REPEATS}) AS enrolled,
           count(*) FILTER (WHERE k.unenrolled <> '{{}}' AND NOT {REPEATS}) AS unenrolled,
           count(*) FILTER (WHERE k.unchanged <> '{{}}' OR {REPEATS}) AS unchanged,
           count(*) FILTER (WHERE k.superseded <> '{{}}') AS superseded,
           count(*) FILTER (WHERE k.outcome = 'rejected') AS rejected,
           count(*) FILTER (WHERE k.outcome = 'waiting') AS waiting,
           count(*) FILTER (WHERE k.command = 'withdraw' AND k.outcome = 'applied' OR k.outcome = 'withdrawn')
               AS withdrawn,
           count(*) FILTER (WHERE k.command_id IS NULL AND d.code IS NOT NULL) AS dead
      FROM (SELECT number, command_id FROM import_rows
             WHERE import_id = :id AND number > :after AND number <= :up_to AND planned IN {SENT}
             ORDER BY number LIMIT :limit) AS r
      JOIN imports AS i ON i.id = :id
      LEFT JOIN commands AS k ON k.command_id = r.command_id
      LEFT JOIN LATERAL (SELECT code FROM dead_letters WHERE command_id = r.command_id LIMIT 1) AS d
        ON k.command_id IS NULL
""")
_DECIDED: Final = text("""
    UPDATE imports SET decided = :number, outcomes = CAST(:outcomes AS jsonb) WHERE id = :id AND decided < :number
""")
_FORGET_ENTRIES: Final = text("DELETE FROM import_entries WHERE import_id = :id")
_FORGET_PLANS: Final = text("""
    DELETE FROM imports WHERE state = 'planned' AND created_at < clock_timestamp() - make_interval(days => :days)
""")
_FORGET: Final = text("DELETE FROM imports WHERE id = :id AND state <> 'sending'")
_LOCK: Final = text("SELECT pg_try_advisory_lock(481516, CAST(:id AS int))")


class UnknownImport(EnrollmentError):
    """There is no such import."""

    def __init__(self, import_id: int) -> None:
        super().__init__(f"There is no import {import_id}; `enrollment imports` lists them.")


class ImportRecord(NamedTuple):
    """One import, as `imports` keeps it."""

    id: int
    state: str
    path: str
    files: list[str]
    format: str
    digest: str
    source: str
    options: dict[str, Any]
    scope: str | None
    issued_at: datetime
    counts: dict[str, int]
    withheld: str | None
    outcomes: dict[str, int]
    sent: int
    decided: int
    undo_of: int | None
    created_at: datetime
    finished_at: datetime | None
    undone_by: int | None

    @property
    def waits_until(self) -> datetime | None:
        """Until when students and courses are waited for that are not in the catalog; None: they are not."""
        seconds = self.options.get("wait_for_catalog")
        return None if seconds is None else self.created_at + timedelta(seconds=seconds)

    def wait_of(self, effective_at: datetime | None) -> datetime | None:
        """Return `waits_until` for a row that takes effect later: it waits as long from then on."""
        until = self.waits_until
        if until is None or effective_at is None:
            return until
        left = datetime.max.replace(tzinfo=effective_at.tzinfo) - effective_at
        return max(until, effective_at + min(timedelta(seconds=self.options["wait_for_catalog"]), left))

    @property
    def to_send(self) -> int:
        """How many rows become commands."""
        return sum(self.counts.get(planned, 0) for planned in ("enroll", "unenroll", "drop", "unchanged", "withdraw"))


class Outgoing(NamedTuple):
    """A row that becomes a command."""

    number: int
    asked: str
    student_id: int | None
    course_id: int | None
    issued_at: datetime
    effective_at: datetime | None
    command_id: UUID
    target: UUID | None  # of a withdraw
    has_outcome: bool  # where that was asked


def create(
    connection: Connection,
    *,
    path: str,
    files: Sequence[str],
    format_: str,
    digest: str,
    source: str,
    options: Mapping[str, Any],
    scope: str | None,
    issued_at: datetime,
    undo_of: int | None = None,
) -> int:
    """Begin a plan; return its id."""
    values = {"path": path, "files": quoted(files), "format": format_, "digest": digest, "source": source}
    said = {"options": json.dumps(options), "scope": scope, "issued_at": issued_at, "undo_of": undo_of}
    return int(connection.execute(_CREATE, {**values, **said}).scalar_one())


def keep_plan(connection: Connection, import_id: int, counts: Mapping[str, int], withheld: str | None) -> None:
    """Write down what was planned."""
    connection.execute(_KEEP, {"id": import_id, "counts": json.dumps(counts), "withheld": withheld})


def get(connection: Connection, import_id: int) -> ImportRecord:
    """Return an import. Raises UnknownImport."""
    row = connection.execute(_ONE, {"id": import_id}).one_or_none() if 0 < import_id < 2**31 else None
    if row is None:
        raise UnknownImport(import_id)
    return ImportRecord._make(row)


def newest(connection: Connection, *, before: int | None = None, limit: int = 20) -> list[ImportRecord]:
    """Return imports, the newest first."""
    return list(map(ImportRecord._make, connection.execute(_NEWEST, {"before": before, "limit": limit})))


def unfinished(connection: Connection, digest: str, source: str, options: Mapping[str, Any]) -> int | None:
    """Return the import of the same content in the same way that was begun and did not get to its end."""
    values = {"digest": digest, "source": source, "options": json.dumps(options)}
    return connection.execute(_UNFINISHED, values).scalar_one_or_none()


def clock(connection: Connection) -> datetime:
    """Return the database's time."""
    now: datetime = connection.execute(_CLOCK).scalar_one()
    return now


def enter(connection: Connection, import_id: int, state: str) -> None:
    """Note that an import is `sending` or `sent`."""
    connection.execute(_STATE, {"id": import_id, "state": state})


def finish(connection: Connection, import_id: int, sent: int) -> bool:
    """Note that an import is `done`, if nothing after that row is sent; tell whether it is."""
    return bool(connection.execute(_DONE, {"id": import_id, "sent": sent}).rowcount)


def lock(connection: Connection, import_id: int) -> bool:
    """Become the only one who applies an import, until the session ends; tell whether nobody else was."""
    return bool(connection.execute(_LOCK, {"id": import_id}).scalar_one())


def to_send(connection: Connection, import_id: int, after: int, *, again: bool) -> list[Outgoing]:
    """Return the next rows to send, in order; with `again` each with whether it has its outcome."""
    rows = connection.execute(_TO_SEND, {"id": import_id, "after": after, "limit": PAGE, "again": again})
    return list(map(Outgoing._make, rows))


def keep_sent(connection: Connection, import_id: int, number: int) -> None:
    """Note that all rows up to this number are sent."""
    connection.execute(_SENT_TO, {"id": import_id, "number": number})


def count_sent(connection: Connection, import_id: int, number: int) -> int:
    """Return how many of the rows up to this number are commands."""
    return int(connection.execute(_TOTAL, {"id": import_id, "number": number}).scalar_one())


def outcomes(connection: Connection, import_id: int, after: int, up_to: int) -> dict[str, Any]:
    """Return the counts of outcomes of the next rows, and how many have none yet; `number` is None at the end."""
    values = {"id": import_id, "after": after, "up_to": up_to, "limit": PAGE}
    return dict(connection.execute(_OUTCOMES, values).mappings().one())


def keep_decided(connection: Connection, import_id: int, number: int, outcomes: Mapping[str, int]) -> None:
    """Note that all rows up to this number have an outcome, and which."""
    connection.execute(_DECIDED, {"id": import_id, "number": number, "outcomes": json.dumps(outcomes)})


def forget_entries(connection: Connection, import_id: int) -> None:
    """Delete what was kept for the catalog; it is there now."""
    connection.execute(_FORGET_ENTRIES, {"id": import_id})


def forget_plans(connection: Connection, days: int) -> None:
    """Delete plans that nobody applied for so long."""
    connection.execute(_FORGET_PLANS, {"days": days})


def forget(connection: Connection, import_id: int) -> bool:
    """Delete an import with its rows; one under way is left. What it did stays."""
    return bool(connection.execute(_FORGET, {"id": import_id}).rowcount)
