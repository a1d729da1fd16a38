"""What takes an import back: a row for each of its changes that nobody has touched since."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from models.import_snapshots import derived
from models.imports import SENT

# Snapshots in force that are newer than row `r` and have decided about its pair, whether they name it or not.
_NEWER_SNAPSHOT: Final = """
    SELECT FROM imports AS newer
     WHERE newer.id <> :of AND newer.state <> 'planned' AND newer.withheld IS NULL AND newer.issued_at > r.issued_at
       AND NOT EXISTS (SELECT FROM imports AS undo WHERE undo.undo_of = newer.id AND undo.state <> 'planned')
       AND CASE newer.scope
           WHEN 'courses' THEN EXISTS (SELECT FROM import_scopes WHERE import_id = newer.id AND course_id = r.course_id)
           WHEN 'source' THEN newer.source = (SELECT source FROM imports WHERE id = :of) END
"""
# What this import changed, and whether the pair is still its own. A file that came twice has the same commands.
_UNDO: Final = text(f"""
    INSERT INTO import_rows (import_id, number, file, line, student, course, student_id, course_id, asked, planned,
                             issued_at, code, message, command_id, target)
    SELECT :id, row_number() OVER (ORDER BY number), file, line, student, course, student_id, course_id, undo,
           CASE WHEN ours THEN undo ELSE 'superseded' END, greatest(CAST(:issued_at AS timestamptz), since),
           CASE WHEN NOT ours THEN 'superseded' END,
           CASE WHEN NOT ours THEN 'Somebody else has decided about this student and course since.' END,
           {derived("'undo:' || number")}, CASE WHEN undo = 'withdraw' THEN command_id END
      FROM (SELECT r.number, r.file, r.line, r.student, r.course, r.student_id, r.course_id, r.command_id,
                   CASE WHEN k.outcome = 'waiting' THEN 'withdraw' WHEN k.enrolled <> '{{}}' THEN 'unenroll'
                        ELSE 'enroll' END AS undo,
                   r.issued_at + interval '1 microsecond' AS since,
                   CASE WHEN k.outcome = 'waiting' THEN true WHEN k.enrolled <> '{{}}' THEN e.student_id IS NOT NULL
                        ELSE t.student_id IS NOT NULL AND NOT EXISTS ({_NEWER_SNAPSHOT})
                         AND NOT coalesce((m.issued_at, m.command_id) > (t.issued_at, t.command_id), false) END AS ours
              FROM import_rows AS r JOIN commands AS k ON k.command_id = r.command_id
              LEFT JOIN student_courses AS e ON e.student_id = r.student_id AND e.course_id = r.course_id
                                            AND e.command_id = r.command_id
              LEFT JOIN tombstones AS t ON t.student_id = r.student_id AND t.course_id = r.course_id
                                       AND t.command_id = r.command_id
              LEFT JOIN replace_marks AS m ON m.student_id = r.student_id
             WHERE r.import_id = :of AND r.planned IN {SENT}
               AND NOT (r.planned = 'unchanged' AND EXISTS (
                        SELECT FROM import_rows AS first WHERE first.student_id = r.student_id
                           AND first.command_id = r.command_id AND first.import_id < r.import_id))
               AND (k.enrolled <> '{{}}' OR k.unenrolled <> '{{}}' OR k.outcome = 'waiting')) AS changed
""")


def plan(connection: Connection, import_id: int, *, of: int, issued_at: datetime, namespace: UUID) -> None:
    """Plan what takes back the changes of an import that nobody has touched since."""
    connection.execute(_UNDO, {"id": import_id, "of": of, "issued_at": issued_at, "namespace": namespace})
