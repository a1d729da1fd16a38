"""Add an index of the words in students' names.

Why: a person looks for a student by the beginning of a first or last name; without the index that reads every student.
It is built without blocking writers.

Revision: 0006, after 0005
"""

from alembic import op

from migrations import steps

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

PUNCTUATION = "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~"  # as in a literal of SQL: the apostrophe is doubled
WORDS = f"to_tsvector('simple'::regconfig, translate(coalesce(name, ''), '{PUNCTUATION}', '{' ' * 32}'))"


def upgrade() -> None:
    """Create the index."""
    with steps.on_its_own():
        steps.add_index_on("students", "students_name_words_idx", f"USING gin ({WORDS})")


def downgrade() -> None:
    """Drop it; students are still found, slowly."""
    op.drop_index("students_name_words_idx", "students")
