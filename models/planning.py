"""Planning an import: its rows staged, located, compared with what is there; set-based, whatever their number.

All of it happens in one transaction, so a plan is there whole or not at all. A dictionary of millions of ids would not
be flat memory; PostgreSQL sorts and joins them on disk.
"""

from collections.abc import Iterable
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection, text

from models.import_entries import GONE, IS_STUDENT, NEW

_STAGE: Final = text("""
    CREATE TEMPORARY TABLE staged (
        kind text, number bigint, file bigint, line bigint, student text, course text, section text, asked text,
        issued_at timestamptz, effective_at timestamptz, by_alias boolean, own_key text, planned text, code text,
        message text, command_id uuid, sis_id text, alias text, parent text, course_code text, title text)
        ON COMMIT DROP
""")
_PATIENT: Final = (  # a plan of millions of rows takes minutes, and holds no lock that a worker waits for
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL work_mem = '64MB'",
)
_BY: Final = {
    "sis_id": "{table}.sis_id = named.{column}",
    "id": "{table}.id = CASE WHEN named.code IS NULL THEN CAST(named.{column} AS bigint) END",
}
# What waits for the catalog: an id of this system is known already; of that of another there is but a text to compare.
_ID: Final = """coalesce({table}.id, CASE WHEN :waits AND named.code IS NULL
                                          THEN CAST(named.{column} AS bigint) END)"""
_KEY: Final = "-(hashtextextended(named.{column}, 0) & 4611686018427387903) - 4611686018427387904"
# Who is not in the catalog and will be once the plan is applied has a negative key until then.
_LOCATE: Final = """
    CREATE TEMPORARY TABLE located ON COMMIT DROP AS
      WITH named AS (
           SELECT r.number, r.file, r.line, r.asked, r.planned, r.command_id, r.section, r.own_key,
                  r.by_alias,
                  CASE WHEN r.by_alias THEN coalesce(other.sis_id, r.student) ELSE r.student END AS student,
                  r.by_alias AND other.sis_id IS NULL AS no_alias,
                  CASE WHEN section.code IS NULL THEN coalesce(nullif(r.course, ''), section.parent, r.section)
                       ELSE section.parent END AS course,
                  r.course = '' AND section.parent IS NULL AS no_section, gone.sis_id IS NOT NULL AS gone_section,
                  coalesce(r.issued_at, CAST(:issued_at AS timestamptz)) AS issued_at, r.effective_at, r.code,
                  r.message
             FROM pg_temp.staged AS r
             LEFT JOIN (SELECT DISTINCT ON (alias) alias, sis_id FROM import_entries
                         WHERE import_id = :id AND kind IN ('student', 'other') AND alias IS NOT NULL
                         ORDER BY alias, kind DESC, number DESC) AS other ON r.by_alias AND other.alias = r.student
             LEFT JOIN (SELECT DISTINCT ON (sis_id) sis_id, parent, code FROM import_entries
                         WHERE import_id = :id AND kind = 'section'
                         ORDER BY sis_id, code IS NOT NULL DESC, number DESC) AS section
               ON section.sis_id = r.section
             LEFT JOIN ({gone_sections}) AS gone ON gone.sis_id = r.section
            WHERE r.kind = 'row')
    SELECT named.number, named.file, named.line, CASE WHEN ends THEN 'unenroll' ELSE named.asked END AS asked,
           CASE WHEN is_over THEN 'ignored' ELSE named.planned END AS planned, named.command_id, named.section,
           named.own_key, named.student, named.course, named.issued_at,
           CASE WHEN NOT ends THEN named.effective_at END AS effective_at, {student_id} AS student_id,
           {course_id} AS course_id, coalesce(s.id, -newcomer.number, {student_key}) AS student_key,
           coalesce(c.id, -opening.number, {course_key}) AS course_key, no_student OR no_course AS waits,
           CASE WHEN named.code IS NOT NULL THEN named.code
                WHEN is_over THEN 'deleted'
                WHEN no_alias THEN 'unknown_student' WHEN no_section THEN 'unknown_section'
                WHEN no_student AND NOT :waits THEN 'unknown_student'
                WHEN no_course AND NOT :waits THEN 'unknown_courses' END AS code,
           CASE WHEN named.code IS NOT NULL THEN named.message
                WHEN is_over THEN 'Its student or course is deleted and not in the catalog, so nobody is taken out.'
                WHEN no_alias THEN 'No user of the files has the integration id ' || named.student || '.'
                WHEN no_section THEN 'No section of the files has the id ' || named.section || '.'
                WHEN no_student AND NOT :waits AND former.sis_id IS NOT NULL
                THEN 'The files call the user ' || named.student || ' deleted.'
                WHEN no_student AND NOT :waits AND :by_role AND EXISTS (
                     SELECT FROM import_entries AS user_ WHERE user_.import_id = :id AND user_.sis_id = named.student
                        AND user_.kind IN ('student', 'other'))
                THEN 'The file of roles does not call the user ' || named.student || ' a student.'
                WHEN no_student AND NOT :waits THEN 'There is no student with the {by} ' || named.student || '.'
                WHEN no_course AND NOT :waits THEN 'There is no course with the {by} ' || named.course || '.'
                WHEN ends THEN 'Its section or course is deleted, so nobody is enrolled in it.' END AS message
      FROM named
      LEFT JOIN students AS s ON {student}
      LEFT JOIN ({newcomers}) AS newcomer ON s.id IS NULL AND newcomer.sis_id = named.student
      LEFT JOIN courses AS c ON {course}
      LEFT JOIN ({openings}) AS opening ON c.id IS NULL AND opening.sis_id = named.course
      LEFT JOIN ({gone_courses}) AS gone ON gone.sis_id = named.course
      LEFT JOIN (SELECT DISTINCT sis_id FROM import_entries
                  WHERE import_id = :id AND kind = 'other' AND code = 'deleted') AS former
        ON former.sis_id = named.student
     CROSS JOIN LATERAL (SELECT s.id IS NULL AND newcomer.number IS NULL AS no_student,
                                c.id IS NULL AND opening.number IS NULL AS no_course,
                                gone_section OR gone.sis_id IS NOT NULL AS is_gone) AS found
     CROSS JOIN LATERAL (SELECT is_gone AND named.asked = 'enroll' AS ends,
                                named.code IS NULL AND (named.asked = 'unenroll' OR is_gone)
                                AND (no_student AND former.sis_id IS NOT NULL OR no_course AND is_gone) AS is_over) AS x
"""
COLUMNS: Final = """import_id, number, file, line, student, course, student_id, course_id, asked, planned, issued_at,
    code, message, command_id"""
_REJECT: Final = text(f"""
    INSERT INTO import_rows ({COLUMNS})
    SELECT :id, number, file, line, student, course, student_id, course_id, asked, coalesce(planned, 'rejected'),
           issued_at, code, message, NULL FROM pg_temp.located WHERE code IS NOT NULL ORDER BY number
""")
# What imports of the same source have asked for, and what waits for its time still.
SCHEDULED: Final = """
    SELECT own.student_id, own.course_id, own.student, own.course, own.asked, own.effective_at, own.issued_at,
           own.command_id
      FROM deferred_commands AS d
      JOIN import_rows AS own ON own.student_id = d.student_id AND own.command_id = d.command_id
      JOIN imports AS i ON i.id = own.import_id
     WHERE d.reason = 'time' AND i.id <> :id
       AND i.source = (SELECT this.source FROM imports AS this WHERE this.id = :id)
"""
# What the state and newer snapshots make of row `r`. A snapshot has decided about pairs that it does not name, too.
STATE: Final = f"""
      LEFT JOIN (SELECT DISTINCT ON (student_id, course_id) * FROM ({SCHEDULED}) AS scheduled
                  ORDER BY student_id, course_id, issued_at DESC) AS w
        ON w.student_id = r.student_id AND w.course_id = r.course_id
      LEFT JOIN student_courses AS e ON e.student_id = r.student_id AND e.course_id = r.course_id
      LEFT JOIN tombstones AS t ON t.student_id = r.student_id AND t.course_id = r.course_id
      LEFT JOIN replace_marks AS m ON m.student_id = r.student_id
      LEFT JOIN (SELECT scope.course_id, max(i.issued_at) AS issued_at FROM imports AS i
                   JOIN import_scopes AS scope ON scope.import_id = i.id
                  WHERE i.id <> :id AND i.scope = 'courses' AND i.state <> 'planned' AND i.withheld IS NULL
                    AND NOT EXISTS (SELECT FROM imports AS undo WHERE undo.undo_of = i.id AND undo.state <> 'planned')
                  GROUP BY scope.course_id) AS z ON z.course_id = r.course_id
"""
_SNAPSHOT: Final = """(SELECT max(i.issued_at) FROM imports AS i
    WHERE i.id <> :id AND i.scope = 'source' AND i.state <> 'planned' AND i.withheld IS NULL
      AND i.source = (SELECT own.source FROM imports AS own WHERE own.id = :id)
      AND NOT EXISTS (SELECT FROM imports AS undo WHERE undo.undo_of = i.id AND undo.state <> 'planned'))"""
PLANNED: Final = f"""CASE
    WHEN greatest(z.issued_at, w.issued_at, {_SNAPSHOT}) > r.issued_at
      OR (e.issued_at, e.command_id) > (coalesce(r.effective_at, r.issued_at), r.command_id)
      OR (t.issued_at, t.command_id) > (coalesce(r.effective_at, r.issued_at), r.command_id)
      OR (m.issued_at, m.command_id) > (coalesce(r.effective_at, r.issued_at), r.command_id) THEN 'superseded'
    WHEN (w.asked, w.effective_at) = (r.asked, r.effective_at) THEN 'scheduled'
    WHEN r.effective_at IS NULL AND (e.student_id IS NOT NULL) = (r.asked = 'enroll') THEN 'unchanged'
    WHEN r.asked = 'enroll' THEN 'enroll' ELSE 'unenroll' END"""
# One row decides about a pair: of those for one enrollment of one section the newest, and of those of several one that
# enrolls, now rather than later. Where one enrolls later and another has ended, both are done, each at its time.
_PLAN: Final = text(f"""
      WITH latest AS (
           SELECT *, row_number() OVER (PARTITION BY student_key, course_key, section, own_key
                                            ORDER BY issued_at DESC, number DESC) AS nth
             FROM pg_temp.located WHERE code IS NULL),
           ranked AS (
           SELECT *, row_number() OVER pair > 1
                     AND (nth > 1 OR first_value(effective_at) OVER pair IS NULL
                          OR row_number() OVER (PARTITION BY student_key, course_key, nth, effective_at IS NULL
                                                    ORDER BY issued_at DESC, number DESC) > 1
                          OR effective_at IS NOT NULL) AS repeats,
                  first_value(file) OVER pair AS in_file, first_value(line) OVER pair AS winner FROM latest
           WINDOW pair AS (PARTITION BY student_key, course_key
                               ORDER BY (nth = 1) DESC, (asked = 'enroll') DESC, effective_at NULLS FIRST,
                                        issued_at DESC, number DESC)),
           compared AS (
           SELECT r.*, CASE WHEN r.repeats THEN 'repeated' ELSE {PLANNED} END AS plan FROM ranked AS r {STATE}),
           told AS (
           SELECT *, CASE WHEN waits AND plan NOT IN ('repeated', 'superseded') AND NOT :by_id THEN 'waiting'
                          ELSE plan END AS said FROM compared)
    INSERT INTO import_rows ({COLUMNS}, effective_at)
    SELECT :id, number, file, line, student, course, student_id, course_id, asked, said, issued_at,
           CASE WHEN said IN ('repeated', 'superseded', 'scheduled') THEN said END,
           CASE said WHEN 'repeated'
                     THEN files[in_file] || ', line ' || winner || ', decides about this student and course.'
                     WHEN 'superseded' THEN 'Something newer has decided about this student and course.'
                     WHEN 'scheduled' THEN 'An earlier import has asked for the same, and it waits for its time.'
                     WHEN 'waiting' THEN 'Its student or course is not in the catalog yet.'
                     ELSE coalesce(message, 'It takes effect on '
                                            || to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24\\:MI UTC'))
                END,
           command_id, effective_at
      FROM told CROSS JOIN (SELECT files FROM imports WHERE id = :id) AS import ORDER BY number
""")
_COUNTS: Final = text("""
    SELECT CASE WHEN asked = 'drop' AND planned = 'unenroll' THEN 'drop' ELSE planned END, count(*)
      FROM import_rows WHERE import_id = :id GROUP BY 1
""")
_MOVED: Final = text(f"""
    SELECT EXISTS (SELECT FROM import_rows AS r {STATE}
     WHERE r.import_id = :id AND r.student_id IS NOT NULL AND r.course_id IS NOT NULL
       AND r.planned IN ('enroll', 'unenroll', 'unchanged', 'superseded', 'scheduled') AND {PLANNED} <> r.planned)
""")
_RESOLVE: Final = tuple(
    text(f"""
        UPDATE import_rows AS r SET {one}_id = t.id FROM {one}s AS t
         WHERE r.import_id = :id AND r.{one}_id IS NULL AND r.planned IN ('enroll', 'unenroll', 'unchanged')
           AND t.sis_id = r.{one}
    """)
    for one in ("student", "course")
)
_VANISHED: Final = text("""
    UPDATE import_rows SET planned = 'rejected', message = 'The student or the course is no longer in the catalog.',
           code = CASE WHEN student_id IS NULL THEN 'unknown_student' ELSE 'unknown_courses' END
     WHERE import_id = :id AND planned IN ('enroll', 'unenroll', 'unchanged')
       AND (student_id IS NULL OR course_id IS NULL)
""")


def be_patient(connection: Connection) -> None:
    """Let the statements of this transaction take as long as they take."""
    for statement in _PATIENT:
        connection.execute(text(statement))


def stage(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Stream rows, with the columns of `_STAGE`, into a temporary table that ends with the transaction."""
    connection.execute(_STAGE)
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy("COPY pg_temp.staged FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute(text("ANALYZE pg_temp.staged"))


def compare(
    connection: Connection, import_id: int, issued_at: object, *, by: str, by_role: bool, waits: bool = False
) -> None:
    """Write down what would come of each staged row, over the state as it is now.

    With `waits`, a row whose student or course is not there is not rejected.
    """
    condition, is_id = _BY[by], by == "id"
    tables = {"student": "s", "course": "c"}
    ids = {f"{it}_id": _ID.format(table=at, column=it) if is_id else f"{at}.id" for it, at in tables.items()}
    keys = {f"{it}_key": ids[f"{it}_id"] if is_id else _KEY.format(column=it) for it in tables}
    locate = _LOCATE.format(
        by="id" if is_id else "SIS id",
        student=condition.format(table="s", column="student"),
        course=condition.format(table="c", column="course"),
        newcomers=NEW.format(kind="student", condition=IS_STUDENT),
        openings=NEW.format(kind="course", condition="true"),
        gone_sections=GONE.format(kind="section"),
        gone_courses=GONE.format(kind="course"),
        **ids,
        **keys,
    )
    connection.execute(text(locate), {"id": import_id, "issued_at": issued_at, "by_role": by_role, "waits": waits})
    connection.execute(text("ANALYZE pg_temp.located"))
    connection.execute(_REJECT, {"id": import_id})
    connection.execute(_PLAN, {"id": import_id, "by_id": is_id})
    connection.execute(text("ANALYZE import_rows"))


def counts(connection: Connection, import_id: int) -> dict[str, int]:
    """Return how many rows are planned for what; those that are absent as `drop`."""
    return {row[0]: row[1] for row in connection.execute(_COUNTS, {"id": import_id})}


def has_moved(connection: Connection, import_id: int) -> bool:
    """Tell whether a row of the plan would come out differently now."""
    return bool(connection.execute(_MOVED, {"id": import_id}).scalar_one())


def resolve(connection: Connection, import_id: int) -> None:
    """Fill in the ids of students and courses that were not in the catalog when the plan was made."""
    for statement in _RESOLVE:
        connection.execute(statement, {"id": import_id})


def reject_unresolved(connection: Connection, import_id: int) -> None:
    """Reject the rows whose student or course is still not in the catalog."""
    connection.execute(_VANISHED, {"id": import_id})
