"""Give commands their place in the order of transactions, and keep how far retention is.

Why: who was away longer than the stream is long reads on from `commands`, and retention walks through them, oldest
first. Both need an order that no transaction can change which commits late: `position` is the number of the transaction
that wrote the row, and what is below the oldest transaction under way (`pg_snapshot_xmin`) is complete.
Rows that are there already get 0: they are older than all others. The default fills the column for whoever does not
name it: workers of the version before, and the trigger of student_courses.

`retention` has one row: before which time everything is refused, because the ids may be forgotten, and how far the walk
is. `forgotten_commands` keeps the ids of commands that said no time: nothing else would tell a repeat.

The index is built without blocking writers. A second run goes on where the first was cut off.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

from migrations.steps import add_index, exists, on_its_own

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)
THIS_TRANSACTION = "((pg_current_xact_id())::text)::bigint"


def upgrade() -> None:
    """Number what comes from now on, and index it."""
    op.execute("ALTER TABLE commands ADD COLUMN IF NOT EXISTS position bigint NOT NULL DEFAULT 0")
    op.execute(f"ALTER TABLE commands ALTER COLUMN position SET DEFAULT {THIS_TRANSACTION}")
    if not exists("retention"):
        _create_tables()
    with on_its_own():
        add_index("commands", ["position", "command_id"])


def downgrade() -> None:
    """Take it away. Refuse where ids are forgotten: nothing would refuse their repeats."""
    op.execute("""
        DO $$ BEGIN IF EXISTS (SELECT FROM retention WHERE forgotten_before > '0001-01-02 00:00:00+00') THEN
            RAISE EXCEPTION 'commands were forgotten; the version before cannot tell their repeats';
        END IF; END $$
    """)
    op.drop_table("forgotten_commands")
    op.drop_table("retention")
    op.drop_column("commands", "position")


def _create_tables() -> None:
    op.create_table(
        "forgotten_commands",
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("command_id", name="forgotten_commands_pkey"),
    )
    op.create_table(
        "retention",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column(
            "forgotten_before", TIME, server_default=sa.text("'0001-01-01 00:00:00+00'::timestamptz"), nullable=False
        ),
        sa.Column("part", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("after_a", sa.BigInteger, server_default="-1", nullable=False),
        sa.Column("after_b", sa.Text, server_default="", nullable=False),
        sa.Column("passed_at", TIME, nullable=True),
        sa.Column("removed", sa.BigInteger, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="retention_pkey"),
    )
    op.execute("INSERT INTO retention (id) VALUES (1)")
