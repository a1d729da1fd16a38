"""Rows of imports whose student or course is not in the catalog yet: kept until it is, or their wait is over."""

from typing import Final

from sqlalchemy import Connection, text

from models.planning import PLANNED, STATE

_IMPORTS: Final = text("""
    SELECT id FROM imports AS i
     WHERE options ? 'wait_for_catalog' AND (state IN ('sending', 'sent') OR state <> 'planned' AND counts ? 'waiting')
       AND NOT EXISTS (SELECT FROM imports AS undo WHERE undo.undo_of = i.id AND undo.state <> 'planned') ORDER BY id
""")
# They come last, for what was sent before is counted by its number. What decided meanwhile is looked at as in a plan.
_LAST: Final = text("SELECT coalesce(max(number), 0) FROM import_rows WHERE import_id = :id")
_ARRIVED: Final = text("""
      WITH there AS (
           SELECT r.number, s.id AS student_id, c.id AS course_id,
                  CAST(:last AS bigint) + row_number() OVER (ORDER BY r.number) AS place
             FROM import_rows AS r JOIN students AS s ON s.sis_id = r.student JOIN courses AS c ON c.sis_id = r.course
            WHERE r.import_id = :id AND r.planned = 'waiting'
              AND coalesce(r.student_id, s.id) = s.id AND coalesce(r.course_id, c.id) = c.id)
    UPDATE import_rows AS r SET student_id = there.student_id, course_id = there.course_id, number = there.place,
           planned = r.asked, message = NULL
      FROM there WHERE r.import_id = :id AND r.number = there.number
""")
_PLAN: Final = text(f"""
    UPDATE import_rows AS row SET planned = compared.plan, code = compared.plan,
           message = CASE compared.plan WHEN 'superseded'
                          THEN 'Something newer has decided about this student and course.'
                          ELSE 'An earlier import has asked for the same, and it waits for its time.' END
      FROM (SELECT r.number, {PLANNED} AS plan FROM import_rows AS r {STATE}
             WHERE r.import_id = :id AND r.number > :last) AS compared
     WHERE row.import_id = :id AND row.number = compared.number AND compared.plan IN ('superseded', 'scheduled')
""")
_OVER: Final = text("""
    UPDATE import_rows AS r SET planned = 'rejected',
           code = CASE WHEN s.id IS NULL THEN 'unknown_student' ELSE 'unknown_courses' END,
           message = CASE WHEN s.id IS NULL THEN 'There is no student with the SIS id ' || w.student || '.'
                          ELSE 'There is no course with the SIS id ' || w.course || '.' END
      FROM import_rows AS w LEFT JOIN students AS s ON s.sis_id = w.student
     WHERE r.import_id = :id AND w.import_id = r.import_id AND w.number = r.number AND r.planned = 'waiting'
       AND (SELECT greatest(created_at, w.effective_at)
                   + make_interval(secs => CAST(options->>'wait_for_catalog' AS float)) FROM imports
             WHERE id = :id) <= clock_timestamp()
""")
_WITHDRAW: Final = text("""
    UPDATE import_rows SET planned = 'withdrawn' WHERE import_id = :id AND planned = 'waiting'
""")


def imports(connection: Connection) -> list[int]:
    """Return the imports that have rows that wait, or sent some and were cut off before these had their outcomes."""
    return list(connection.execute(_IMPORTS).scalars())


def look(connection: Connection, import_id: int) -> bool:
    """Plan the rows that wait no longer; tell whether there are any."""
    last = connection.execute(_LAST, {"id": import_id}).scalar_one()
    arrived = connection.execute(_ARRIVED, {"id": import_id, "last": last}).rowcount
    if arrived:
        connection.execute(_PLAN, {"id": import_id, "last": last})
    return bool(arrived + connection.execute(_OVER, {"id": import_id}).rowcount)


def withdraw(connection: Connection, import_id: int) -> None:
    """Let no row of an import wait any more: it is undone."""
    connection.execute(_WITHDRAW, {"id": import_id})
