"""Let rows of imports say when they take effect, and which waiting command they withdraw.

Why: a row may begin on a day that is yet to come; a later file may want it no longer.

Revision: 0018, after 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("import_rows", sa.Column("effective_at", sa.TIMESTAMP(timezone=True)))
    op.add_column("import_rows", sa.Column("target", sa.Uuid))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("import_rows", "target")
    op.drop_column("import_rows", "effective_at")
