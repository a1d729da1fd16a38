"""One person's data: all that is kept of a student, and taking away what says who they are.

What remains after an erasure is ids: the student's in `commands`, tombstones and the replace mark. They are what keeps
a late command from bringing anything back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from models import audit

# A dead letter is of a student where its message has the id as an argument, or the id or the name by which other
# systems know them. The payload is what anybody sent: it need not be JSON.
_MENTIONS: Final = """(
    dead_letters.payload ~ ('"student_id"\\s*:\\s*' || CAST(:id AS text) || '\\M')
    OR dead_letters.payload ~ ('^\\s*\\[\\s*\\[\\s*' || CAST(:id AS text) || '\\M')
    OR dead_letters.command_id IN (SELECT command_id FROM commands WHERE student_id = :id)
    OR strpos(dead_letters.payload, to_json(CAST(:sis_id AS text))::text) > 0
    OR (length(CAST(:name AS text)) > 3 AND strpos(dead_letters.payload, CAST(:name AS text)) > 0))
"""
_SEVERAL: Final = """dead_letters.payload ~ '"commands"\\s*:'"""  # of other students, too
_OPEN: Final = "dead_letters.replayed_at IS NULL AND dead_letters.discarded_at IS NULL"
_ROWS: Final = """(import_rows.student_id = :id OR import_rows.student = CAST(:sis_id AS text))"""

_EXPORTED: Final = {
    "student": "SELECT to_jsonb(students) FROM students WHERE id = :id",
    "enrollments": "SELECT to_jsonb(e) FROM student_courses AS e WHERE student_id = :id ORDER BY course_id",
    "unenrolled": "SELECT to_jsonb(t) FROM tombstones AS t WHERE student_id = :id ORDER BY course_id",
    "replaced": "SELECT to_jsonb(r) FROM replace_marks AS r WHERE student_id = :id",
    "commands": "SELECT to_jsonb(c) - 'content_hash' FROM commands AS c WHERE student_id = :id ORDER BY issued_at",
    "waiting": "SELECT to_jsonb(d) - 'content_hash' FROM deferred_commands AS d WHERE student_id = :id ORDER BY id",
    "dead_letters": f"SELECT to_jsonb(dead_letters) FROM dead_letters WHERE {_MENTIONS} ORDER BY id",
    "import_rows": f"SELECT to_jsonb(import_rows) FROM import_rows WHERE {_ROWS} ORDER BY import_id, number",
    "audit": "SELECT to_jsonb(a) FROM audit AS a WHERE subject = 'students/' || CAST(:id AS text) ORDER BY id",
}
_LOCK: Final = text("SELECT sis_id, name FROM students WHERE id = :id FOR UPDATE")
_WHO: Final = text("SELECT sis_id, name FROM students WHERE id = :id")
_REDACT: Final = text(f"""
    UPDATE dead_letters SET payload = '', headers = '{{}}', message = 'It was about a student who was erased.',
           discarded_at = CASE WHEN replayed_at IS NULL THEN coalesce(discarded_at, clock_timestamp()) END
     WHERE {_MENTIONS} AND NOT ({_OPEN} AND {_SEVERAL})
""")
_UNDECIDED: Final = text(f"SELECT id FROM dead_letters WHERE {_MENTIONS} AND {_OPEN} AND {_SEVERAL} ORDER BY id")
_SCHEDULED: Final = text("""
    SELECT command_id FROM deferred_commands WHERE student_id = :id AND reason = 'time' ORDER BY until
""")
# A row that waits would find whoever has this id as that of the SIS.
_FORGET_ROWS: Final = text(f"""
    UPDATE import_rows SET student = CAST(:id AS text), message = NULL,
           planned = CASE planned WHEN 'waiting' THEN 'rejected' ELSE planned END,
           code = CASE planned WHEN 'waiting' THEN 'unknown_student' ELSE code END
     WHERE {_ROWS}
""")
_FORGET_ENTRIES: Final = text("""
    DELETE FROM import_entries
     WHERE kind IN ('student', 'other') AND (sis_id = CAST(:sis_id AS text) OR alias = CAST(:sis_id AS text))
""")
# In one statement, so that the trigger of student_courses finds the student gone: it buries each pair, and tells of
# them on the stream as of a deleted student (migration 0009).
_DELETE: Final = text("""
    WITH gone AS (DELETE FROM students WHERE id = :id) DELETE FROM student_courses WHERE student_id = :id
""")
# Newer than whatever was issued before, which may say a time five minutes ahead: it finds its pair decided, also one
# that never was a row, and also after the id has come back.
_MARK: Final = text("""
    INSERT INTO replace_marks AS mark (student_id, issued_at, command_id)
    SELECT :id, clock_timestamp() + interval '5 minutes', gen_random_uuid()
        ON CONFLICT (student_id) DO UPDATE SET issued_at = EXCLUDED.issued_at, command_id = EXCLUDED.command_id
     WHERE (mark.issued_at, mark.command_id) < (EXCLUDED.issued_at, EXCLUDED.command_id)
""")


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done: whether there was such a student, enrollments ended, dead letters and import rows emptied.

    `undecided` are open dead letters with commands of other students as well: they keep what they hold until somebody
    decides about them. `scheduled` are commands that wait for their time: they would apply, should the id come back.
    """

    found: bool
    enrollments: int
    dead_letters: int
    import_rows: int
    undecided: tuple[int, ...]
    scheduled: tuple[UUID, ...]


def export(connection: Connection, student_id: int, *, by: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return all that is kept of a student, by table, and note who asked."""
    said = _said(connection, student_id)
    audit.add(connection, by, audit.EXPORTED, [audit.student(student_id)])
    return {name: list(connection.execute(text(statement), said).scalars()) for name, statement in _EXPORTED.items()}


def erase(connection: Connection, student_id: int, *, by: str) -> Erased:
    """End a student's enrollments, and take away what says who they are. Doing it again does what was left."""
    said = _said(connection, student_id, lock=True)
    undecided = tuple(connection.execute(_UNDECIDED, said).scalars())
    letters = connection.execute(_REDACT, said).rowcount
    rows = connection.execute(_FORGET_ROWS, said).rowcount
    connection.execute(_FORGET_ENTRIES, said)
    ended = connection.execute(_DELETE, said).rowcount
    connection.execute(_MARK, said)
    detail = {"enrollments": ended, "dead_letters": letters, "import_rows": rows}
    audit.add(connection, by, audit.ERASED, [audit.student(student_id)], detail=detail)
    scheduled = tuple(connection.execute(_SCHEDULED, said).scalars())
    return Erased(said["name"] is not None, ended, letters, rows, undecided, scheduled)


def _said(connection: Connection, student_id: int, *, lock: bool = False) -> dict[str, Any]:
    row = connection.execute(_LOCK if lock else _WHO, {"id": student_id}).one_or_none()
    sis_id, name = (None, None) if row is None else row
    return {"id": student_id, "sis_id": sis_id or None, "name": name}
