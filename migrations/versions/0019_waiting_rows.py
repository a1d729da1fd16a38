"""Add an index of the rows of imports that wait for the catalog.

Why: each import looks whether what waits in earlier ones is there now, and read all rows of those to find a few; so did
the question why somebody is not enrolled. The index has only rows that wait. It is built without blocking writers.

Revision: 0019, after 0018
"""

from alembic import op

from migrations import steps

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    with steps.on_its_own():
        steps.add_index_on("import_rows", "import_rows_waiting_idx", "(student, import_id) WHERE planned = 'waiting'")


def downgrade() -> None:
    """Drop it; what waits is still found, slowly."""
    op.drop_index("import_rows_waiting_idx", "import_rows")
