"""Add the stamps, and the tables commands, outbox, tombstones and replace_marks.

Why: each pair belongs to the command with the highest stamp, so the stamp is kept with the pair, or with its tombstone,
or with the student's latest replace. `commands` holds what was asked and what came of it; `outbox` the batches whose
events are committed and not yet known to be published.

The stamp columns are null in rows that are older than the worker: any command is newer than these.

The downgrade keeps every row of student_courses, and forgets the commands.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)
BIGINTS = ARRAY(sa.BigInteger)


def upgrade() -> None:
    """Add what order and repeats need."""
    op.add_column("student_courses", sa.Column("issued_at", TIME, nullable=True))
    op.add_column("student_courses", sa.Column("command_id", sa.Uuid, nullable=True))
    _create_marks()
    _create_commands()
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("batch_id", sa.Uuid, nullable=False),
        sa.Column("command_ids", ARRAY(sa.Uuid), nullable=False),
        sa.Column("committed_at", TIME, server_default=sa.func.clock_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="outbox_pkey"),
        sa.UniqueConstraint("batch_id", name="outbox_batch_id_key"),
    )


def downgrade() -> None:
    """Take them away, the newest first."""
    for table in ("outbox", "commands", "replace_marks", "tombstones"):
        op.drop_table(table)
    for column in ("command_id", "issued_at"):
        op.drop_column("student_courses", column)


def _create_marks() -> None:
    op.create_table(
        "tombstones",
        sa.Column("student_id", sa.BigInteger, nullable=False),
        sa.Column("course_id", sa.BigInteger, nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("student_id", "course_id", name="tombstones_pkey"),
        sa.ForeignKeyConstraint(["student_id"], ["students.id"], "tombstones_student_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["course_id"], ["courses.id"], "tombstones_course_id_fkey", ondelete="CASCADE"),
    )
    op.create_table(
        "replace_marks",
        sa.Column("student_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("student_id", name="replace_marks_pkey"),
        sa.ForeignKeyConstraint(["student_id"], ["students.id"], "replace_marks_student_id_fkey", ondelete="CASCADE"),
    )


def _create_commands() -> None:
    op.create_table(
        "commands",
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.Column("command", sa.Text, nullable=True),
        sa.Column("student_id", sa.BigInteger, nullable=True),
        sa.Column("course_ids", BIGINTS, nullable=True),
        sa.Column("issued_at", TIME, nullable=True),
        sa.Column("source", sa.Text, nullable=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("enrolled", BIGINTS, nullable=False),
        sa.Column("unenrolled", BIGINTS, nullable=False),
        sa.Column("unchanged", BIGINTS, nullable=False),
        sa.Column("superseded", BIGINTS, nullable=False),
        sa.Column("errors", JSONB, nullable=False),
        sa.Column("processed_at", TIME, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("command_id", name="commands_pkey"),
    )
    op.create_index("commands_student_id_issued_at_idx", "commands", ["student_id", "issued_at", "command_id"])
