"""Create dead_letters.

Why: a message that is not a valid command, or that could not be processed, is kept until a person decides. It is unique
by its message key, so that a message delivered twice is one dead letter. Payload and headers are text: jsonb refuses
U+0000, and what is kept here may be anything.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("message_key", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("command_id", sa.Uuid, nullable=True),
        sa.Column("task", sa.Text, nullable=True),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("received_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="dead_letters_pkey"),
        sa.UniqueConstraint("message_key", name="dead_letters_message_key_key"),
    )
    op.create_index("dead_letters_code_id_idx", "dead_letters", ["code", "id"])


def downgrade() -> None:
    """Drop it, with what no person has decided yet."""
    op.drop_table("dead_letters")
