"""${message}.

Why: SAY IT HERE.

While this runs, and for a while after, old and new workers share the database. New code must run on the old schema and
old code on the new one: expand first (add what is new, nullable or with a default), contract in a later release (take
away what no running code reads). On a table that holds rows: indexes CONCURRENTLY, constraints NOT VALID and then
VALIDATE, both through `migrations.steps`; no rewrite, no backfill in one statement. A step that commits on its own must
bear being run again.

Revision: ${up_revision}, after ${down_revision | comma,n}
Written: ${create_date}
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Expand."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """Undo it; data that was there before the upgrade stays."""
    ${downgrades if downgrades else "raise NotImplementedError"}
