"""Roles of PostgreSQL with the least rights: which program may do what with which table."""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import Connection, text

from enrollment.errors import EnrollmentError
from models.metadata import METADATA

PREFIX: Final = "enrollment_"  # of the roles' names

_ALL: Final = "SELECT, INSERT, UPDATE, DELETE"
_CATALOG: Final = "SELECT, INSERT, UPDATE"  # `catalog remove` is for the owner
# A worker locks students and courses, and changes neither: PostgreSQL asks for the right to update a column. Without it
# on courses, a worker would learn of a lock only by waiting for it (models/locks.py).
_LOCKED: Final = "SELECT, UPDATE ({column})"
_IMPORTS: Final = ("imports", "import_rows", "import_entries", "import_scopes")

RIGHTS: Final[Mapping[str, Mapping[str, str]]] = {
    "worker": {
        "alembic_version": "SELECT",
        "students": _LOCKED.format(column="name"),
        "courses": _LOCKED.format(column="title"),
        **dict.fromkeys(("student_courses", "tombstones", "replace_marks", "deferred_commands", "outbox"), _ALL),
        "commands": "SELECT, INSERT, DELETE",  # one that waits is replaced by what came of it
        "closed_courses": "SELECT",
        "dead_letters": _ALL,
        "retention": "SELECT, UPDATE",
        "epoch": "SELECT",
        "forgotten_commands": "SELECT, INSERT",
    },
    "gateway": {  # and `enrollment` at the command line: import, catalog, dead-letters
        "alembic_version": "SELECT",
        "students": _CATALOG,
        "courses": _CATALOG,
        "closed_courses": "SELECT, INSERT, DELETE",
        "retention": "SELECT",
        "epoch": "SELECT",
        "forgotten_commands": "SELECT",
        **dict.fromkeys(("student_courses", "tombstones", "replace_marks", "commands", "outbox"), "SELECT"),
        "deferred_commands": "SELECT, UPDATE (until)",
        "dead_letters": "SELECT, UPDATE",
        "audit": "SELECT, INSERT",
        **dict.fromkeys(_IMPORTS, _ALL),
    },
    "reader": dict.fromkeys(
        ("alembic_version", "students", "courses", "student_courses", "commands", "retention", "epoch"), "SELECT"
    ),
    "exporter": {
        "commands": "SELECT (position, command_id, processed_at)",
        "retention": "SELECT",
        "outbox": "SELECT",
        "deferred_commands": "SELECT (reason, waits_for, first_seen, until)",
        "dead_letters": "SELECT (id, code, received_at, replayed_at, discarded_at)",  # no payloads
    },
}

_TABLES: Final = text("""
    SELECT name, format('%I.%I', n.nspname, c.relname), format('%I', n.nspname),
           CASE WHEN name IN ('students', 'courses') THEN pg_get_serial_sequence(name, 'id') END
      FROM unnest(CAST(:tables AS text[])) AS name
      JOIN pg_class AS c ON c.oid = to_regclass(name) JOIN pg_namespace AS n ON n.oid = c.relnamespace
""")
_DATABASE: Final = text("SELECT format('%I', current_database())")


class NoTables(EnrollmentError):
    """The tables are not there, so nothing can be granted on them."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"There is no table {', '.join(missing)}: run `enrollment migrate`, then this again.")


def grants(connection: Connection) -> Iterator[str]:
    """Yield the SQL, for whoever owns the tables: roles are made where they are missing, and get these rights alone.

    The tables are those that this connection sees, in whatever schema. Raises NoTables.
    """
    names = [*METADATA.tables, "alembic_version"]
    found = {row[0]: row[1:] for row in connection.execute(_TABLES, {"tables": names})}
    if missing := [name for name in names if name not in found]:
        raise NoTables(missing)
    database = connection.execute(_DATABASE).scalar_one()
    schemas = ", ".join(sorted({schema for _, schema, _ in found.values()}))
    sequences = [sequence for name in ("students", "courses") if (sequence := found[name][2])]
    tables = {name: qualified for name, (qualified, _, _) in found.items()}
    yield from _owner(tables, schemas, database)
    for role in RIGHTS:
        yield from _role(role, tables, schemas, database)
    yield f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {PREFIX}gateway" if sequences else ""
    yield "-- Optional: without it, `doctor` and a worker's log name who holds a lock, but not what that session does."
    yield f"-- GRANT pg_read_all_stats TO {PREFIX}worker, {PREFIX}exporter"


def _owner(tables: Mapping[str, str], schemas: str, database: str) -> Iterator[str]:
    name = f"{PREFIX}owner"
    yield "-- Runs `enrollment migrate`. Leave out a table that another system owns, and migrate as its owner."
    yield from _made(name, schemas, database)
    yield f"GRANT CREATE ON SCHEMA {schemas} TO {name}"
    yield from (f"ALTER TABLE {table} OWNER TO {name}" for table in tables.values())
    # What tells of deleted rows writes with its owner's rights.
    schema = tables["student_courses"].rpartition(".")[0]
    yield from (
        f"ALTER FUNCTION {schema}.{function}() OWNER TO {name}"
        for function in ("tell_of_taken_pairs", "refuse_change_of_audit")
    )


def _role(role: str, tables: Mapping[str, str], schemas: str, database: str) -> Iterator[str]:
    name = f"{PREFIX}{role}"
    yield from _made(name, schemas, database)
    yield f"REVOKE ALL ON {', '.join(tables.values())} FROM {name}"
    yield from (f"GRANT {rights} ON {tables[table]} TO {name}" for table, rights in RIGHTS[role].items())


def _made(name: str, schemas: str, database: str) -> Iterator[str]:
    yield (f"DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} LOGIN; END IF; END $$")
    yield f"GRANT CONNECT ON DATABASE {database} TO {name}"
    yield f"GRANT USAGE ON SCHEMA {schemas} TO {name}"
