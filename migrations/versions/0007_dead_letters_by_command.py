"""Add an index of the command ids of dead letters.

Why: whoever waits for a command asks whether its message became a dead letter; without the index that reads them all.
It is built without blocking writers.

Revision: 0007, after 0006
"""

from alembic import op

from migrations import steps

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    with steps.on_its_own():
        steps.add_index("dead_letters", ["command_id"])


def downgrade() -> None:
    """Drop it; dead letters are still found, slowly."""
    op.drop_index("dead_letters_command_id_idx", "dead_letters")
