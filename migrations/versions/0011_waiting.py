"""Add what commands that wait need: deferred_commands.until and .told, commands.waiting and .target, outbox.events.

Why: a command may wait for its time, or for a student or course that does not exist yet. It is kept where commands
wait for locks, with the time until which it does, by which it is found without a look at the others; `told` says that
it stands in commands as waiting, with what it waits for. The event which says so cannot be made anew from a record
that has changed meanwhile, so the outbox holds its text. All columns may be null or have a constant default: nothing
is rewritten.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations.steps import add_index_on, on_its_own

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEX = "deferred_commands_until_idx"


def upgrade() -> None:
    """Add the columns, then the index."""
    op.add_column("deferred_commands", sa.Column("until", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("deferred_commands", sa.Column("told", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column("commands", sa.Column("waiting", JSONB, nullable=True))
    op.add_column("commands", sa.Column("target", sa.Uuid, nullable=True))
    op.add_column("outbox", sa.Column("events", ARRAY(sa.Text), nullable=True))
    with on_its_own():
        add_index_on(
            "deferred_commands", INDEX, "(until) WHERE reason IN ('time', 'unknown_course', 'unknown_student')"
        )


def downgrade() -> None:
    """Take them away. Refuse while commands wait: an older worker does not know what for."""
    op.execute("""
        DO $$ BEGIN IF EXISTS (SELECT FROM deferred_commands WHERE told) THEN
            RAISE EXCEPTION 'commands wait for their time or the catalog; let them be decided, or withdraw them first';
        END IF; END $$
    """)
    op.drop_index(INDEX, "deferred_commands")
    op.drop_column("outbox", "events")
    op.drop_column("commands", "target")
    op.drop_column("commands", "waiting")
    op.drop_column("deferred_commands", "told")
    op.drop_column("deferred_commands", "until")
