"""Keep tombstones and replace marks of deleted ids, and tell of pairs that vanish without a command.

Why: who deletes a student or a course, and adds it again under the same id, took the marks with it: a late command then
took effect that an earlier, newer one had overruled. So the marks have no foreign keys any more. And rows of
student_courses that another system or a person deletes (directly, by a cascade, by TRUNCATE) left no mark, and no event
told of them: a copy that follows the stream kept what the table had lost. Now a trigger of student_courses writes what
an unenroll would have written: tombstones, one command per student, and the outbox (docs/adr/0009).

Old workers share the database meanwhile. They do not say in their transactions that they tell by themselves
(models/ledger.py), so the trigger knows them by the name of their sessions.

The triggers are on our table alone. The function runs with the rights of who migrates, whoever deletes, and finds its
tables where they are now, whatever the search path of who deletes.

The downgrade forgets the marks of ids that are not there, which the foreign keys could not bear.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

REFERENCES = (
    ("tombstones", "student_id", "students"),
    ("tombstones", "course_id", "courses"),
    ("replace_marks", "student_id", "students"),
)
TABLES = ("students", "courses", "student_courses", "tombstones", "replace_marks", "commands", "outbox")
_QUALIFIED = sa.text("""
    SELECT format('%I.%I', n.nspname, c.relname), format('%I', n.nspname)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:table)
""")

# Plans by key alone, as in the worker: PostgreSQL keeps the first one, which may have been made for a single row.
FUNCTION = """
CREATE FUNCTION {schema}.tell_of_taken_pairs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    clock timestamptz := clock_timestamp();
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM {student_courses};  -- which comes here again
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' THEN
        RAISE restrict_violation USING MESSAGE = format(
            'student %s is enrolled in course %s, so neither id can be changed: unenroll the student first',
            OLD.student_id, OLD.course_id);
    END IF;
    WITH because AS (
        SELECT t.student_id, t.course_id, t.issued_at,
               CASE WHEN s.id IS NULL THEN 'catalog:student-deleted'
                    WHEN c.id IS NULL THEN 'catalog:course-deleted'
                    ELSE 'database:row-deleted' END AS source
          FROM taken AS t
          LEFT JOIN {students} AS s ON s.id = t.student_id
          LEFT JOIN {courses} AS c ON c.id = t.course_id),
    numbered AS (
        SELECT *, (row_number() OVER (PARTITION BY student_id, source ORDER BY course_id) - 1) / 1000 AS part
          FROM because),
    told AS MATERIALIZED (  -- newer than what the pairs belonged to, whose stamps may be minutes ahead
        SELECT gen_random_uuid() AS command_id, student_id, source,
               array_agg(course_id ORDER BY course_id) AS course_ids,
               greatest(clock, max(issued_at) + interval '1 microsecond') AS issued_at
          FROM numbered GROUP BY student_id, source, part),
    buried AS (
        INSERT INTO {tombstones} AS mark (student_id, course_id, issued_at, command_id)
        SELECT student_id, unnest(course_ids) AS course_id, issued_at, command_id FROM told
         ORDER BY student_id, course_id
            ON CONFLICT (student_id, course_id)
            DO UPDATE SET issued_at = EXCLUDED.issued_at, command_id = EXCLUDED.command_id
             WHERE (mark.issued_at, mark.command_id) < (EXCLUDED.issued_at, EXCLUDED.command_id)),
    recorded AS (  -- no content: no message can repeat it
        INSERT INTO {commands} (command_id, command, student_id, course_ids, issued_at, source, outcome,
                                enrolled, unenrolled, unchanged, superseded, errors, processed_at, content_hash)
        SELECT command_id, 'unenroll', student_id, course_ids, issued_at, source, 'applied',
               '{{}}', course_ids, '{{}}', '{{}}', '[]', clock, '' FROM told)
    INSERT INTO {outbox} (batch_id, command_ids)
    SELECT gen_random_uuid(), array_agg(command_id)
      FROM (SELECT command_id, row_number() OVER (ORDER BY student_id) / 200 AS page FROM told) AS paged
     GROUP BY page ORDER BY page;
    RETURN NULL;
END
$$
"""
TRIGGERS = """
CREATE TRIGGER tell_of_deleted_pairs AFTER DELETE ON {student_courses} REFERENCING OLD TABLE AS taken
   FOR EACH STATEMENT
  WHEN (pg_trigger_depth() > 0 OR coalesce(current_setting('enrollment.tells', true), '') <> 'on'
                                  AND current_setting('application_name') <> 'enrollment worker')
       EXECUTE FUNCTION {schema}.tell_of_taken_pairs();
CREATE TRIGGER tell_of_truncated_pairs BEFORE TRUNCATE ON {student_courses}
   FOR EACH STATEMENT EXECUTE FUNCTION {schema}.tell_of_taken_pairs();
CREATE TRIGGER refuse_other_ids AFTER UPDATE OF student_id, course_id ON {student_courses}
   FOR EACH ROW WHEN ((OLD.student_id, OLD.course_id) <> (NEW.student_id, NEW.course_id))
       EXECUTE FUNCTION {schema}.tell_of_taken_pairs();
"""


def upgrade() -> None:
    """Free the marks from the catalog, and tell of what vanishes."""
    _lock()
    for table, column, _ in REFERENCES:
        op.drop_constraint(f"{table}_{column}_fkey", table, type_="foreignkey")
    names = _names()
    op.execute(FUNCTION.format_map(names))
    op.execute(TRIGGERS.format_map(names))


def downgrade() -> None:
    """Bind the marks to the catalog again, those of deleted ids are lost; tell of nothing."""
    _lock()
    op.execute("DROP FUNCTION {schema}.tell_of_taken_pairs CASCADE".format_map(_names()))  # with its triggers
    for table, column, target in REFERENCES:
        op.execute(f"DELETE FROM {table} AS m WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE t.id = m.{column})")  # noqa: S608 - names of ours
        op.create_foreign_key(f"{table}_{column}_fkey", table, target, [column], ["id"], ondelete="CASCADE")


def _lock() -> None:
    """Take what the steps need in the order in which a batch takes it: neither waits for the other in a circle."""
    op.execute("LOCK TABLE students, courses, student_courses, tombstones, replace_marks IN ACCESS EXCLUSIVE MODE")


def _names() -> dict[str, str]:
    """Return where each table is, and the schema of student_courses, as SQL writes them."""
    found = {table: op.get_bind().execute(_QUALIFIED, {"table": table}).one() for table in TABLES}
    return {table: row[0] for table, row in found.items()} | {"schema": found["student_courses"][1]}
