"""Create audit: who decided about dead letters, changed a student by hand, exported or erased one.

Why: it must be known, and not only to whoever could change the log. Rows are only added: a trigger refuses the rest
(docs/adr/0013). The table is new, so nothing waits for a lock.

Revision: 0013, after 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

FUNCTION = """
CREATE FUNCTION {schema}.refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'rows of audit are only added, never changed or deleted';
END $$
"""
TRIGGER = """
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
   FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change_of_audit()
"""


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("command_ids", ARRAY(sa.Uuid), nullable=False),
        sa.Column("detail", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_pkey"),
    )
    op.create_index("audit_subject_idx", "audit", ["subject"])
    schema = _schema()
    op.execute(FUNCTION.format(schema=schema))
    op.execute(TRIGGER.format(schema=schema))


def downgrade() -> None:
    """Drop it, with what it holds."""
    schema = _schema()
    op.drop_table("audit")
    op.execute(f"DROP FUNCTION {schema}.refuse_change_of_audit")


def _schema() -> str:
    """Return the schema of the table, as SQL writes it; a function is not looked for where a table may be."""
    found = op.get_bind().scalar(
        sa.text(
            "SELECT format('%I', n.nspname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.oid = to_regclass('audit')"
        )
    )
    return str(found)
