"""Keep up to where the change feed lacks commands that retention has removed.

Why: who asks for what comes after a position below that has to be told that something is missing.

Revision: 0015, after 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing is rewritten."""
    op.execute("ALTER TABLE retention ADD COLUMN IF NOT EXISTS gone_to bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Take it away."""
    op.drop_column("retention", "gone_to")
