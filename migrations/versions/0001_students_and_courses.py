"""Create students and courses.

Why: commands name students and courses by their ids, and are rejected where those do not exist.

A system may have had these tables before. Then they stay, with every row and every column of their own, and get what is
missing: `sis_id` (null, unique), `name`, `code`, `title`, and ids assigned by the database from past the highest one.

The downgrade keeps both tables as they are: whose rows they hold cannot be known, and an upgrade adopts them again.
Who wants them gone drops them by hand.

Revision: 0001, the first
"""

import sqlalchemy as sa
from alembic import op

from migrations import steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = {"students": ("name",), "courses": ("code", "title")}


def upgrade() -> None:
    """Create the tables, or adopt them."""
    adopted = [table for table in TABLES if steps.exists(table)]
    for table, columns in TABLES.items():
        if table in adopted:
            _adopt(table, columns)
        else:
            _create(table, columns)
    if adopted:
        with steps.on_its_own():
            for table in adopted:
                steps.add_unique(table, ["id"], primary=True)
                steps.add_unique(table, ["sis_id"])


def downgrade() -> None:
    """Keep both tables: see above."""


def _create(table: str, columns: tuple[str, ...]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("sis_id", sa.Text, nullable=True),
        *(sa.Column(column, sa.Text, server_default="", nullable=False) for column in columns),
        sa.PrimaryKeyConstraint("id", name=f"{table}_pkey"),
        sa.UniqueConstraint("sis_id", name=f"{table}_sis_id_key"),
    )


def _adopt(table: str, columns: tuple[str, ...]) -> None:
    steps.widen(table, "id")
    steps.assign_ids(table)
    steps.add_column(table, "sis_id", "text")
    for column in columns:
        steps.add_column(table, column, "text NOT NULL DEFAULT ''")  # a constant default: no rewrite
