"""Snapshots: who is absent from one, within its scope, and what a guard must know before they are unenrolled."""

from typing import Final, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from models.planning import COLUMNS, SCHEDULED

_SCOPE: Final = text("""
    INSERT INTO import_scopes (import_id, course_id)
    SELECT :id, course_id FROM import_rows WHERE import_id = :id AND course_id IS NOT NULL
    UNION
    SELECT :id, c.id FROM import_entries AS n JOIN courses AS c ON c.sis_id = n.sis_id
     WHERE n.import_id = :id AND n.kind = 'course'
    ON CONFLICT DO NOTHING
""")
_IN_SCOPE: Final = {
    "courses": """SELECT e.* FROM student_courses AS e JOIN import_scopes AS scope
                      ON scope.import_id = :id AND scope.course_id = e.course_id""",
    "source": """SELECT e.* FROM student_courses AS e JOIN commands AS k ON k.command_id = e.command_id
                  WHERE k.source = (SELECT own.source FROM imports AS own WHERE own.id = :id)""",
}
# A row that is wrong still says that the student is not absent; a teacher's says nothing of it.
# What was decided after the snapshot is not the snapshot's.
_IS_ABSENT: Final = """
    NOT EXISTS (SELECT FROM import_rows AS r WHERE r.import_id = :id AND r.student_id = e.student_id
                   AND r.course_id = e.course_id AND r.code IS DISTINCT FROM 'not_student')
    AND coalesce(e.issued_at, '-infinity') < CAST(:issued_at AS timestamptz)
"""


def derived(name: str) -> str:
    """Return the SQL for a UUID that follows from the import's namespace and a name: version 3 of RFC 9562."""
    digest = f"md5(uuid_send(CAST(:namespace AS uuid)) || convert_to({name}, 'UTF8'))"
    variant = f"substr('89ab', 1 + (('x' || substr({digest}, 17, 1))::bit(4)::int & 3), 1)"
    return f"overlay(overlay({digest} PLACING '3' FROM 13) PLACING {variant} FROM 17)::uuid"


_ABSENT: Final = f"""
      WITH first AS (SELECT max(number) AS number FROM import_rows WHERE import_id = :id)
    INSERT INTO import_rows ({COLUMNS})
    SELECT :id, coalesce((SELECT number FROM first), 0) + row_number() OVER (ORDER BY e.course_id, e.student_id),
           NULL, NULL, coalesce(s.sis_id, ''), coalesce(c.sis_id, ''), e.student_id, e.course_id, 'drop', 'unenroll',
           CAST(:issued_at AS timestamptz), NULL, NULL, {derived("'drop:' || e.student_id || ':' || e.course_id")}
      FROM ({{pairs}}) AS e JOIN students AS s ON s.id = e.student_id JOIN courses AS c ON c.id = e.course_id
     WHERE {_IS_ABSENT}
"""
# What was scheduled about pairs that this import decides about, or that are absent from it.
_WITHDRAW: Final = text(f"""
      WITH last AS (SELECT coalesce(max(number), 0) AS number FROM import_rows WHERE import_id = :id)
    INSERT INTO import_rows ({COLUMNS}, target)
    SELECT :id, last.number + row_number() OVER (ORDER BY s.course_id, s.student_id, s.command_id), NULL, NULL,
           s.student, s.course, s.student_id, s.course_id, 'withdraw', 'withdraw', CAST(:issued_at AS timestamptz),
           NULL, NULL, {derived("'withdraw:' || s.command_id")}, s.command_id
      FROM last, ({SCHEDULED}) AS s
     WHERE EXISTS (SELECT FROM import_rows AS r WHERE r.import_id = :id AND r.student_id = s.student_id
                      AND r.course_id = s.course_id AND r.planned IN ('enroll', 'unenroll', 'unchanged'))
       AND NOT EXISTS (SELECT FROM import_rows AS r WHERE r.import_id = :id AND r.student_id = s.student_id
                          AND r.course_id = s.course_id AND r.planned = 'scheduled')
        OR (CAST(:scope AS text) = 'source'
            OR :scope = 'courses' AND EXISTS (SELECT FROM import_scopes AS scope
                                               WHERE scope.import_id = :id AND scope.course_id = s.course_id))
       AND NOT EXISTS (SELECT FROM import_rows AS r WHERE r.import_id = :id AND r.student_id = s.student_id
                          AND r.course_id = s.course_id AND r.code IS DISTINCT FROM 'not_student')
       AND s.issued_at < CAST(:issued_at AS timestamptz)
""")
_DROPS: Final = """
      WITH held AS (SELECT course_id, count(*) AS members FROM ({pairs}) AS e GROUP BY course_id),
           gone AS (SELECT course_id, count(*) AS drops FROM import_rows
                     WHERE import_id = :id AND asked = 'drop' GROUP BY course_id),
           both_ AS (SELECT held.course_id, held.members, coalesce(gone.drops, 0) AS drops
                       FROM held LEFT JOIN gone USING (course_id))
    (SELECT 'all' AS what, NULL AS course, coalesce(sum(drops), 0), coalesce(sum(members), 0) FROM both_)
    UNION ALL (SELECT 'most', {course}, drops, members FROM both_ JOIN courses AS c ON c.id = course_id
                ORDER BY drops DESC LIMIT 1)
    UNION ALL (SELECT 'share', {course}, drops, members FROM both_ JOIN courses AS c ON c.id = course_id
                ORDER BY CAST(drops AS float) / members DESC LIMIT 1)
"""
_COURSE: Final = "coalesce(nullif(c.code, ''), c.sis_id, CAST(c.id AS text))"
# A row that waits for the catalog may name its student wrongly. One by ids is planned as the command that will wait.
# Whoever is taken out by mistake for another is no less absent.
_WRONG: Final = text("""
      WITH wrong AS (
           SELECT number, file, line, course_id FROM import_rows
            WHERE import_id = :id AND planned IN ('rejected', 'waiting') AND asked IS DISTINCT FROM 'unenroll'
           UNION ALL
           SELECT number, file, line, c.id FROM import_rows AS r
             LEFT JOIN students AS s ON s.id = r.student_id LEFT JOIN courses AS c ON c.id = r.course_id
            WHERE :commands_wait AND import_id = :id AND planned = 'enroll'
              AND (s.id IS NULL OR c.id IS NULL)),
           in_scope AS (
           SELECT * FROM wrong AS r
            WHERE course_id IS NULL OR :everywhere
               OR EXISTS (SELECT FROM import_scopes AS s WHERE s.import_id = :id AND s.course_id = r.course_id))
    SELECT (SELECT count(*) FROM in_scope),
           (SELECT i.files[r.file] || ', line ' || r.line FROM in_scope AS r JOIN imports AS i ON i.id = :id
             ORDER BY r.number LIMIT 1)
""")
_ASKING: Final = text("""
    SELECT count(*) FROM import_rows WHERE import_id = :id AND planned NOT IN ('ignored', 'rejected')
""")
_WITHHOLD: Final = text("""
    UPDATE import_rows SET planned = 'withheld', code = 'withheld', message = :reason
     WHERE import_id = :id AND asked = 'drop'
""")
# Who is not enrolled and not named is absent, and no command says so: one that comes late would find nothing newer.
_LEAVE_OUT: Final = text("""
      WITH lost AS MATERIALIZED (
           SELECT number, student_id, course_id, issued_at FROM import_rows AS r
            WHERE import_id = :id AND number > :after AND asked = 'enroll' AND planned IN ('enroll', 'unchanged')
              AND NOT EXISTS (SELECT FROM commands WHERE command_id = r.command_id)),
           newer AS MATERIALIZED (
           SELECT i.id, scope.course_id, i.issued_at FROM imports AS own JOIN imports AS i ON i.id <> own.id
             LEFT JOIN import_scopes AS scope ON i.scope = 'courses' AND scope.import_id = i.id
            WHERE own.id = :id AND i.state <> 'planned' AND i.withheld IS NULL
              AND i.issued_at > (SELECT min(issued_at) FROM lost)
              AND (scope.course_id IS NOT NULL OR i.scope = 'source' AND i.source = own.source)
              AND NOT EXISTS (SELECT FROM imports AS undo WHERE undo.undo_of = i.id AND undo.state <> 'planned')),
           decided AS (
           SELECT number, student_id, course_id, newer.id FROM lost JOIN newer USING (course_id)
            WHERE newer.issued_at > lost.issued_at
           UNION ALL
           SELECT number, student_id, lost.course_id, newer.id FROM lost, newer
            WHERE newer.course_id IS NULL AND newer.issued_at > lost.issued_at)
    UPDATE import_rows AS r SET planned = 'superseded', code = 'superseded',
           message = 'A newer snapshot does not have this student in this course.'
      FROM decided AS by
     WHERE r.import_id = :id AND r.number = by.number
       AND NOT EXISTS (SELECT FROM import_rows AS named
                        WHERE named.import_id = ANY(ARRAY(SELECT id FROM newer)) AND named.import_id = by.id
                          AND named.student_id = by.student_id AND named.course_id = by.course_id
                          AND named.code IS DISTINCT FROM 'not_student')
""")
_MORE_ABSENT: Final = f"SELECT EXISTS (SELECT FROM ({{pairs}}) AS e WHERE {_IS_ABSENT})"

Scope = Literal["courses", "source"]


class Drops(NamedTuple):
    """How many of a course, or of all courses in scope, are absent, and how many are enrolled now."""

    course: str | None
    drops: int
    members: int


def keep_scope(connection: Connection, import_id: int) -> None:
    """Write down which courses the import has whole lists of, as far as they are in the catalog."""
    connection.execute(_SCOPE, {"id": import_id})


def add_absent(connection: Connection, import_id: int, scope: Scope, issued_at: object, namespace: UUID) -> None:
    """Add a row to the plan for each pair in scope that the files do not have."""
    statement = text(_ABSENT.format(pairs=_IN_SCOPE[scope]))
    connection.execute(statement, {"id": import_id, "issued_at": issued_at, "namespace": namespace})


def add_withdraws(
    connection: Connection, import_id: int, scope: str | None, issued_at: object, namespace: UUID
) -> None:
    """Add a row to the plan for each command of an earlier import that waits for its time, and is wanted no longer."""
    said = {"id": import_id, "scope": scope, "issued_at": issued_at, "namespace": namespace}
    connection.execute(_WITHDRAW, said)


def drops(connection: Connection, import_id: int, scope: Scope) -> dict[str, Drops]:
    """Return the drops in `all`, those of the course with the `most`, and of the one with the largest `share`."""
    statement = text(_DROPS.format(pairs=_IN_SCOPE[scope], course=_COURSE))
    rows = connection.execute(statement, {"id": import_id})
    return {what: Drops(course, int(gone), int(members)) for what, course, gone, members in rows}


def invalid(
    connection: Connection, import_id: int, scope: Scope, *, commands_wait: bool = False
) -> tuple[int, str | None]:
    """Return how many rows in scope are invalid or wait, and the file and line of the first.

    One of an unknown course may be of any. With `commands_wait`, those wait whose command will.
    """
    said = {"id": import_id, "everywhere": scope == "source", "commands_wait": commands_wait}
    count, first = connection.execute(_WRONG, said).one()
    return count, first


def asking(connection: Connection, import_id: int) -> int:
    """Return how many rows ask for something."""
    return int(connection.execute(_ASKING, {"id": import_id}).scalar_one())


def withhold(connection: Connection, import_id: int, reason: str) -> None:
    """Leave the absent enrolled, and say why in each of their rows."""
    connection.execute(_WITHHOLD, {"id": import_id, "reason": reason})


def leave_out_absent(connection: Connection, import_id: int, after: int) -> bool:
    """Leave out the enrollments after this row, without outcome, that a newer snapshot does not have; tell of any."""
    return bool(connection.execute(_LEAVE_OUT, {"id": import_id, "after": after}).rowcount)


def more_are_absent(connection: Connection, import_id: int, scope: Scope, issued_at: object) -> bool:
    """Tell whether somebody is absent now who was not when the plan was made."""
    statement = text(_MORE_ABSENT.format(pairs=_IN_SCOPE[scope]))
    return bool(connection.execute(statement, {"id": import_id, "issued_at": issued_at}).scalar_one())
