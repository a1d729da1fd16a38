"""Create student_courses.

Why: the answer to "who is enrolled in what", for anyone to join; a row is there if and only if the student is enrolled.
The primary key answers for a student, the index for a course (its roster) and for the foreign key.

A system may have had this table before. Then its rows stay, and it gets what is missing: the key, the foreign keys, the
index. The downgrade drops the table only if this revision created it, which a comment on its key says.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

from migrations import steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "student_courses"
MARK = "created by revision 0002"
_COMMENT = sa.text(
    "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint"
    " WHERE conrelid = to_regclass('student_courses') AND contype = 'p'"
)


def upgrade() -> None:
    """Create the table, or adopt it."""
    if steps.exists(TABLE):
        _adopt()
        return
    op.create_table(
        TABLE,
        sa.Column("student_id", sa.BigInteger, nullable=False),
        sa.Column("course_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("student_id", "course_id", name="student_courses_pkey"),
        sa.ForeignKeyConstraint(["student_id"], ["students.id"], name="student_courses_student_id_fkey"),
        sa.ForeignKeyConstraint(["course_id"], ["courses.id"], name="student_courses_course_id_fkey"),
    )
    op.create_index("student_courses_course_id_student_id_idx", TABLE, ["course_id", "student_id"])
    op.execute(f"COMMENT ON CONSTRAINT student_courses_pkey ON {TABLE} IS '{MARK}'")


def downgrade() -> None:
    """Drop the table if it is ours."""
    if op.get_bind().scalar(_COMMENT) == MARK:
        op.drop_table(TABLE)


def _adopt() -> None:
    for column in ("student_id", "course_id"):
        steps.widen(TABLE, column)
    with steps.on_its_own():
        steps.add_unique(TABLE, ["student_id", "course_id"], primary=True)
        steps.add_index(TABLE, ["course_id", "student_id"])
        steps.add_reference(TABLE, "student_id", "students")
        steps.add_reference(TABLE, "course_id", "courses")
