"""What an import's files say of students, courses and sections: kept with it until it is applied."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, text

_ENTRIES: Final = text("""
      WITH learner AS (
           SELECT DISTINCT u.number FROM pg_temp.staged AS u
            CROSS JOIN LATERAL (VALUES (u.sis_id, false), (u.alias, true)) AS id (named, by_alias)
             JOIN pg_temp.staged AS r ON r.student = id.named AND r.by_alias = id.by_alias AND r.asked IS NOT NULL
            WHERE u.kind = 'other' AND u.course_code IS NULL)
    INSERT INTO import_entries (import_id, number, kind, sis_id, alias, parent, code, title)
    SELECT :id, u.number, CASE WHEN learner.number IS NULL THEN kind ELSE 'student' END, sis_id, alias, parent,
           course_code, title FROM pg_temp.staged AS u LEFT JOIN learner ON learner.number = u.number
     WHERE kind <> 'row' ORDER BY u.number
""")
# Of the users of a file only students go to the catalog, where the file tells who is one.
IS_STUDENT: Final = """(NOT :by_role OR EXISTS (
    SELECT FROM import_entries AS role WHERE role.import_id = :id AND role.kind = 'role' AND role.sis_id = u.sis_id))"""
NEW: Final = """
    SELECT sis_id, max(number) AS number FROM import_entries AS u
     WHERE import_id = :id AND kind = '{kind}' AND {condition} GROUP BY sis_id
"""
# What the files call deleted, and not anew in a later row. Nobody is enrolled in it.
GONE: Final = """
    SELECT sis_id FROM import_entries WHERE import_id = :id AND kind IN ('{kind}', 'gone_{kind}') GROUP BY sis_id
    HAVING max(number) = max(number) FILTER (WHERE kind = 'gone_{kind}')
"""
_NEWCOMERS: Final = text(f"""
    SELECT DISTINCT ON (sis_id) sis_id, title FROM import_entries AS u
     WHERE import_id = :id AND kind = 'student' AND {IS_STUDENT} ORDER BY sis_id, number DESC
""")
_OPENINGS: Final = text("""
    SELECT DISTINCT ON (sis_id) sis_id, code, title FROM import_entries
     WHERE import_id = :id AND kind = 'course' ORDER BY sis_id, number DESC
""")
_STREAMED: Final = {"yield_per": 5000}  # rows in memory


def keep_entries(connection: Connection, import_id: int) -> None:
    """Keep what was staged for the catalog until the import is applied."""
    connection.execute(_ENTRIES, {"id": import_id})
    connection.execute(text("ANALYZE import_entries"))


def newcomers(connection: Connection, import_id: int, *, by_role: bool) -> Iterable[tuple[str, str | None]]:
    """Stream the students for the catalog: sis_id and name."""
    result = connection.execute(_NEWCOMERS, {"id": import_id, "by_role": by_role}, execution_options=_STREAMED)
    return ((row[0], row[1]) for row in result)


def openings(connection: Connection, import_id: int) -> Iterable[tuple[str, str | None, str | None]]:
    """Stream the courses for the catalog: sis_id, code and title."""
    result = connection.execute(_OPENINGS, {"id": import_id}, execution_options=_STREAMED)
    return ((row[0], row[1], row[2]) for row in result)
