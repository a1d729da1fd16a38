"""Who decided what by hand: rows that are only added, in the transaction of the change where there is one."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from json import dumps
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from models.arrays import plain, quoted

REPLAYED: Final = "dead_letter.replayed"
EDITED: Final = "dead_letter.edited"  # and replayed so
DISCARDED: Final = "dead_letter.discarded"
CHANGED: Final = "student.changed"  # asked for on the admin page; what came of it is in `commands`
RELEASED: Final = "wait.ended"  # for a student or course that does not exist
WITHDRAWN: Final = "command.withdrawn"  # asked for; what came of it is in `commands`
IMPORTED: Final = "import.applied"  # one that takes another back, too
TAKEN_UP: Final = "import.taken_up"  # rows of it that had waited for the catalog
CLOSED: Final = "course.closed"
OPENED: Final = "course.opened"
REMOVED: Final = "catalog.removed"  # a student or course, from the catalog
EXPORTED: Final = "student.exported"
ERASED: Final = "student.erased"

_ADD: Final = text("""
    INSERT INTO audit (who, action, subject, command_ids, detail)
    SELECT :who, :action, subject, CAST(:commands AS uuid[]), CAST(:detail AS jsonb)
      FROM unnest(CAST(:subjects AS text[])) AS subject
""")
_COLUMNS: Final = "id, at, who, action, subject, command_ids, detail"
_NEWEST: Final = text(f"""
    SELECT {_COLUMNS} FROM audit
     WHERE (CAST(:subject AS text) IS NULL OR subject = :subject)
       AND (CAST(:before AS bigint) IS NULL OR id < CAST(:before AS bigint))
     ORDER BY id DESC LIMIT CAST(:limit AS bigint)
""")


class AuditEntry(NamedTuple):
    """One row. `subject` is `students/42` or `dead-letters/7`; `detail` has ids and numbers, no names of students."""

    id: int
    at: datetime
    who: str
    action: str
    subject: str
    command_ids: list[UUID]
    detail: dict[str, Any]


def dead_letter(dead_letter_id: int) -> str:
    """Return the subject that a dead letter is."""
    return f"dead-letters/{dead_letter_id}"


def command(command_id: UUID) -> str:
    """Return the subject that a command is."""
    return f"commands/{command_id}"


def import_(import_id: int) -> str:
    """Return the subject that an import is."""
    return f"imports/{import_id}"


def course(course_id: int) -> str:
    """Return the subject that a course is."""
    return f"courses/{course_id}"


def student(student_id: int) -> str:
    """Return the subject that a student is."""
    return f"students/{student_id}"


def add(
    connection: Connection,
    who: str,
    action: str,
    subjects: Iterable[str],
    *,
    command_ids: Iterable[UUID] = (),
    detail: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Note what `who` did to each of these subjects."""
    said = {"who": who, "action": action, "subjects": quoted(subjects), "commands": plain(command_ids)}
    connection.execute(_ADD, {**said, "detail": dumps(dict(detail))})


def newest(
    connection: Connection, *, subject: str | None = None, before: int | None = None, limit: int = 50
) -> Sequence[AuditEntry]:
    """Return the newest entries (of one subject, with ids below `before`), the newest first."""
    said = {"subject": subject, "before": before, "limit": limit}
    return [AuditEntry._make(row) for row in connection.execute(_NEWEST, said)]
