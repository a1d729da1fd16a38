"""Add an index of commands by the time they were processed, and the column `trace`.

Why: the overview counts the commands of the last hour, day and week without reading all that there ever were. `trace`
keeps the trace context of a command for its event, which the relay writes again after an outage. The index is built
without blocking writers; the column is null in every row that is there, so no row is rewritten.

Revision: 0012, after 0011
"""

from alembic import op

from migrations import steps

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, then the index."""
    op.execute("ALTER TABLE commands ADD COLUMN IF NOT EXISTS trace text")
    with steps.on_its_own():
        steps.add_index("commands", ["processed_at"])


def downgrade() -> None:
    """Drop both; traces end at the worker then."""
    op.drop_index("commands_processed_at_idx", "commands")
    op.drop_column("commands", "trace")
