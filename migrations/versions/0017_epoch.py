"""Keep the epoch of the database: what a cursor of the change feed names, and what changes when it is restored.

Why: a cursor holds a number of a transaction. A database that was restored counts on from where its copy was made, and
gives the same numbers to other commands: a reader that kept a cursor from before would miss them. The epoch begins as
PostgreSQL's own name for this cluster, which cursors have named so far; so those that were handed out stay good.
Beside it stand the cluster and the timeline for which it holds. A dump that is loaded into another cluster, and a
recovery to a point in time, change these: so they are noticed.

Workers of the version before do not know the table, and do not need it.

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its row."""
    op.create_table(
        "epoch",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("cluster", sa.BigInteger, nullable=False),
        sa.Column("timeline", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="epoch_pkey"),
    )
    op.execute("""
        INSERT INTO epoch (id, epoch, cluster, timeline)
        SELECT 1, system_identifier & 9223372036854775807, system_identifier, timeline_id
          FROM pg_control_system(), pg_control_checkpoint()
    """)


def downgrade() -> None:
    """Drop it: cursors name the cluster again."""
    op.drop_table("epoch")
