"""Create deferred_commands.

Why: a command whose student, course or rows are locked by somebody else waits here, with its place in the order of
arrival, and its message is acknowledged: nothing behind it has to wait. It refers to no other table: a foreign key
would need the very lock that is waited for.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "deferred_commands",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("waits_for", sa.BigInteger, nullable=False),
        sa.Column("first_seen", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("command_id", sa.Uuid, nullable=True),
        sa.Column("content_hash", sa.LargeBinary, nullable=True),
        sa.Column("student_id", sa.BigInteger, nullable=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("message_key", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="deferred_commands_pkey"),
        sa.UniqueConstraint("command_id", name="deferred_commands_command_id_key"),
    )
    op.create_index(
        "deferred_commands_reason_waits_for_first_seen_idx", "deferred_commands", ["reason", "waits_for", "first_seen"]
    )


def downgrade() -> None:
    """Drop it. Refuse while commands wait in it: their messages are acknowledged."""
    op.execute("""
        DO $$ BEGIN IF EXISTS (SELECT FROM deferred_commands) THEN
            RAISE EXCEPTION 'commands wait in deferred_commands; let a worker apply them first';
        END IF; END $$
    """)
    op.drop_table("deferred_commands")
