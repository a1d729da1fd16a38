"""Add the tables of imports: imports, import_rows, import_entries, import_scopes.

Why: an import is planned before anything is sent, goes on after a kill, and can be explained and undone later. All
four are new, so nothing waits for a lock.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    _create_imports()
    _create_rows()
    op.create_table(
        "import_entries",
        sa.Column("import_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sis_id", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=True) for name in ("alias", "parent", "code", "title")),
        sa.PrimaryKeyConstraint("import_id", "number", name="import_entries_pkey"),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], "import_entries_import_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("import_entries_import_id_idx", "import_entries", ["import_id", "kind", "sis_id"])
    op.create_table(
        "import_scopes",
        sa.Column("import_id", sa.BigInteger, nullable=False),
        sa.Column("course_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("import_id", "course_id", name="import_scopes_pkey"),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], "import_scopes_import_id_fkey", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Take them away; what the imports did stays."""
    for table in ("import_scopes", "import_entries", "import_rows", "imports"):
        op.drop_table(table)


def _create_imports() -> None:
    op.create_table(
        "imports",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("files", ARRAY(sa.Text), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("format", "digest", "source")),
        sa.Column("options", JSONB, nullable=False),
        sa.Column("scope", sa.Text, nullable=True),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("counts", JSONB, nullable=False),
        sa.Column("withheld", sa.Text, nullable=True),
        sa.Column("outcomes", JSONB, nullable=False),
        sa.Column("sent", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("decided", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("undo_of", sa.BigInteger, nullable=True),
        sa.Column("created_at", TIME, server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="imports_pkey"),
        sa.ForeignKeyConstraint(["undo_of"], ["imports.id"], "imports_undo_of_fkey", ondelete="CASCADE"),
    )
    op.create_index("imports_digest_idx", "imports", ["digest"])


def _create_rows() -> None:
    op.create_table(
        "import_rows",
        sa.Column("import_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=True) for name in ("file", "line")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("student", "course")),
        *(sa.Column(name, sa.BigInteger, nullable=True) for name in ("student_id", "course_id")),
        sa.Column("asked", sa.Text, nullable=True),
        sa.Column("planned", sa.Text, nullable=False),
        sa.Column("issued_at", TIME, nullable=True),
        *(sa.Column(name, sa.Text, nullable=True) for name in ("code", "message")),
        sa.Column("command_id", sa.Uuid, nullable=True),
        sa.PrimaryKeyConstraint("import_id", "number", name="import_rows_pkey"),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], "import_rows_import_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("import_rows_student_id_idx", "import_rows", ["student_id"])
