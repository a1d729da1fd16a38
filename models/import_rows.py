"""The rows of imports, read: for reports, for what a plan comes to, and for why a pair is as it is."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, text

from models.imports import PAGE, REPEATS, SENT

_REPORT: Final = text(f"""
    SELECT r.number, r.file, r.line, r.student, r.course, r.student_id, r.course_id, r.asked, r.planned, r.code,
           r.message, r.command_id, k.outcome, k.errors,
           CASE WHEN {REPEATS} THEN 'unchanged'
                WHEN k.enrolled <> '{{}}' THEN 'enrolled' WHEN k.unenrolled <> '{{}}' THEN 'unenrolled'
                WHEN k.unchanged <> '{{}}' THEN 'unchanged' WHEN k.superseded <> '{{}}' THEN 'superseded'
                WHEN k.command = 'withdraw' AND k.outcome = 'applied' THEN 'withdrawn' END AS effect,
           d.code AS dead_code, d.message AS dead_message
      FROM (SELECT * FROM import_rows WHERE import_id = :id AND number > :after
               AND (CAST(:planned AS text) IS NULL OR planned = :planned) ORDER BY number LIMIT :limit) AS r
      JOIN imports AS i ON i.id = r.import_id
      LEFT JOIN commands AS k ON k.command_id = r.command_id AND r.planned IN {SENT}
      LEFT JOIN LATERAL (SELECT code, message FROM dead_letters
                          WHERE command_id = r.command_id AND r.planned IN {SENT} LIMIT 1) AS d
        ON k.command_id IS NULL
     ORDER BY r.number
""")
# A role of a school's own may be a student's; the other ignored rows are right.
_REASONS: Final = text("""
      WITH reason AS (
           SELECT planned, code, count(*) AS rows, min(number) AS number FROM import_rows
            WHERE import_id = :id AND (planned = 'rejected' OR planned = 'ignored' AND code = 'other_role')
            GROUP BY planned, code)
    SELECT reason.planned, reason.code, reason.rows, i.files[r.file] AS file, r.line, r.message
      FROM reason JOIN import_rows AS r ON r.import_id = :id AND r.number = reason.number
      JOIN imports AS i ON i.id = :id
     ORDER BY reason.planned DESC, reason.rows DESC, reason.number
""")
# The larger the part of its students that a course loses, the more surprising; then what was rejected, then the rest.
_COURSES: Final = text("""
      WITH told AS (
           SELECT course, course_id, count(*) FILTER (WHERE planned = 'enroll') AS enroll,
                  count(*) FILTER (WHERE planned IN ('unenroll', 'withdraw')) AS unenroll,
                  count(*) FILTER (WHERE planned = 'unchanged') AS unchanged,
                  count(*) FILTER (WHERE planned = 'waiting') AS waiting,
                  count(*) FILTER (WHERE planned IN ('superseded', 'scheduled', 'repeated', 'ignored',
                                                     'withdrawn')) AS aside,
                  count(*) FILTER (WHERE planned = 'withheld') AS withheld,
                  count(*) FILTER (WHERE planned = 'rejected') AS rejected
             FROM import_rows WHERE import_id = :id GROUP BY course, course_id),
           now AS (SELECT course_id, count(*) AS members FROM student_courses
                    WHERE course_id IN (SELECT course_id FROM told) GROUP BY course_id)
    SELECT told.course, told.course_id, coalesce(c.code, '') AS code, coalesce(now.members, 0) AS members, enroll,
           unenroll, unchanged, waiting, aside, withheld, rejected
      FROM told LEFT JOIN now USING (course_id) LEFT JOIN courses AS c ON c.id = told.course_id
     ORDER BY CAST(unenroll + withheld AS float) / greatest(coalesce(now.members, 0), 1) DESC, rejected DESC,
              CAST(enroll AS float) / greatest(coalesce(now.members, 0), 1) DESC, told.course
     LIMIT :limit
""")
_ROWS_OF: Final = text("""
    SELECT r.command_id, r.import_id, i.files[r.file] AS file, r.line, r.asked, r.planned, r.issued_at, i.source,
           i.path, i.undo_of, r.message
      FROM import_rows AS r JOIN imports AS i ON i.id = r.import_id
     WHERE r.student_id = CAST(:student AS bigint) AND r.course_id = CAST(:course AS bigint)
       AND i.state <> 'planned' AND r.target IS NULL
     ORDER BY r.issued_at, r.command_id LIMIT 1000
""")
_WAITING: Final = text("""
    SELECT r.import_id, i.files[r.file] AS file, r.line, r.asked, r.issued_at, r.student, r.course,
           r.student_id IS NOT NULL OR EXISTS (SELECT FROM students WHERE sis_id = r.student) AS has_student,
           EXISTS (SELECT FROM courses WHERE sis_id = r.course) AS has_course,
           least(greatest(i.created_at, r.effective_at)
                 + make_interval(secs => CAST(i.options->>'wait_for_catalog' AS float)), '9999-12-31Z') AS until
      FROM import_rows AS r JOIN imports AS i ON i.id = r.import_id
     WHERE r.planned = 'waiting' AND r.student = :student AND i.state <> 'planned'
       AND (CAST(:course AS text) IS NULL OR r.course = :course)
     ORDER BY r.issued_at, r.import_id, r.number LIMIT 10
""")


def report(connection: Connection, import_id: int, *, planned: str | None = None) -> Iterator[Any]:
    """Give each row with its outcome, in order; with `planned`, those of one plan only."""
    after: int | None = 0
    while after is not None:
        values = {"id": import_id, "after": after, "limit": PAGE, "planned": planned}
        rows = connection.execute(_REPORT, values).all()
        yield from rows
        after = rows[-1].number if len(rows) == PAGE else None


def reasons(connection: Connection, import_id: int) -> list[Any]:
    """Return why rows were rejected when they were read, or ignored for a role of a school's own.

    Of each `planned`, `code`, how many `rows`, and the `file` (None: it was absent), `line` and `message` of the first.
    """
    return list(connection.execute(_REASONS, {"id": import_id}))


def surprising(connection: Connection, import_id: int, limit: int) -> list[Any]:
    """Return the courses of a plan with what would happen in each, the most surprising first."""
    return list(connection.execute(_COURSES, {"id": import_id, "limit": limit}))


def rows_of(connection: Connection, student_id: int, course_id: int) -> list[Any]:
    """Return the rows of imports about a pair, in order of stamp."""
    return list(connection.execute(_ROWS_OF, {"student": student_id, "course": course_id}))


def waiting(connection: Connection, student: str | None, course: str | None = None) -> list[Any]:
    """Return rows that wait for the catalog and name a student, and a course where one is said, by the SIS's ids."""
    return list(connection.execute(_WAITING, {"student": student, "course": course})) if student else []
