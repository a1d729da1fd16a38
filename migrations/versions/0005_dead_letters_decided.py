"""Add to dead_letters what a person decided: replayed, as which commands, or discarded.

Why: a replay has to be found again from the dead letter it came from, and what was decided is no longer listed. The
columns are nullable and without a default, so that adding them rewrites nothing and code of before goes on.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("dead_letters", sa.Column("replayed_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("dead_letters", sa.Column("replayed_as", postgresql.ARRAY(sa.Uuid), nullable=True))
    op.add_column("dead_letters", sa.Column("discarded_at", sa.TIMESTAMP(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop them: what was decided looks open again."""
    op.drop_column("dead_letters", "discarded_at")
    op.drop_column("dead_letters", "replayed_as")
    op.drop_column("dead_letters", "replayed_at")
