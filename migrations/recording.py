"""An upgrade written down instead of done: over empty copies of the tables, in one transaction that is rolled back."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from alembic.util import CommandError
from sqlalchemy import Connection, event, text

BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"

_CHANGES: Final = re.compile(
    r"\s*(ALTER|COMMENT|CREATE|DELETE|DROP|INSERT|LOCK|UPDATE|SELECT\s+setval|DO|GRANT)\b", re.IGNORECASE
)
# Temporary tables come first in the search path, so a revision sees them in place of the originals; only their
# structure is copied, so nothing is locked for longer than a look at the catalog.
_TABLES: Final = text("""
    SELECT c.relname, format('CREATE TEMPORARY TABLE %1$I (LIKE %2$I.%1$I INCLUDING ALL)', c.relname, n.nspname)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname = current_schema() ORDER BY c.oid
""")
# The sequence of a serial column is no part of the structure that LIKE copies.
_SERIALS: Final = text("""
    SELECT format('CREATE TEMPORARY SEQUENCE %1$I AS %2$s OWNED BY %3$I.%4$I', s.relname,
                  format_type(q.seqtypid, NULL), t.relname, a.attname)
           || format('; ALTER TABLE %2$I ALTER COLUMN %3$I SET DEFAULT nextval(%1$L)', s.relname, t.relname, a.attname)
      FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid JOIN pg_sequence AS q ON q.seqrelid = s.oid
      JOIN pg_class AS t ON t.oid = d.refobjid
      JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'a' AND t.relnamespace = current_schema()::regnamespace
""")
_REFERENCES: Final = text("""
    SELECT format('ALTER TABLE pg_temp.%I ADD CONSTRAINT %I %s', c.conrelid::regclass, c.conname,
                  replace(pg_get_constraintdef(c.oid), 'REFERENCES ' || n.nspname || '.', 'REFERENCES '))
      FROM pg_constraint AS c JOIN pg_namespace AS n ON n.oid = c.connamespace
     WHERE c.contype = 'f' AND n.nspname = current_schema()
""")


@contextmanager
def recording(connection: Connection, statements: list[str]) -> Iterator[None]:
    """Collect in `statements` what changes the schema inside this block, and undo it at the end."""
    schema = connection.scalar(text("SELECT current_schema()"))
    references = connection.execute(_REFERENCES).scalars().all()
    serials = connection.execute(_SERIALS).scalars().all()
    for name, copy in connection.execute(_TABLES).all():
        connection.execute(text(copy))
        if name == "alembic_version":
            connection.execute(text(f"INSERT INTO pg_temp.alembic_version SELECT * FROM {schema}.alembic_version"))  # noqa: S608
    connection.execute(text("SET LOCAL search_path = pg_temp"))
    for addition in [part for serial in serials for part in serial.split("; ")] + list(references):
        connection.execute(text(addition))

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if not _CHANGES.match(statement):
            return statement, parameters
        if parameters:
            raise CommandError(f"A statement with parameters cannot be written down: {statement.strip()}")
        statements.append(re.sub(r"\bpg_temp(_\d+)?\b", str(schema), statement.strip()))
        return statement.replace(" CONCURRENTLY", ""), parameters

    event.listen(connection, "before_cursor_execute", note, retval=True)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", note)
        connection.rollback()
