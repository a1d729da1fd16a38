"""Create closed_courses.

Why: a course may take no more enrollments while those that it has stay, and can be taken back. The table is ours: the
courses may be another system's.

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "closed_courses",
        sa.Column("course_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column(
            "closed_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.func.clock_timestamp(),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("course_id", name="closed_courses_pkey"),
        sa.ForeignKeyConstraint(["course_id"], ["courses.id"], "closed_courses_course_id_fkey", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Drop it: all courses are open."""
    op.drop_table("closed_courses")
