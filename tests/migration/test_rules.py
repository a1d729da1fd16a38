"""What a revision must keep to, because workers of the version before run meanwhile: read off the SQL that it sends."""

import re
import threading

import psycopg
import pytest

from migrations import NEWEST, STOPS_OLD_WORKERS
from tests.migration.steps import FILL, Database
from worker import schema

OLDEST = "0007"  # what is newer is held to the rules; nobody upgrades from older ones with workers that run

RULES = {
    "an index of a table in use is built CONCURRENTLY": r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)",
    "a column that is required has a default": r"ADD COLUMN (?!.*DEFAULT).*NOT NULL",
    "no column changes its type": r"ALTER COLUMN \w+ (SET DATA )?TYPE",
    "nothing is dropped or renamed that old workers use": r"DROP (COLUMN|TABLE)|RENAME",
    "a new reference is checked later": r"ADD CONSTRAINT \w+ FOREIGN KEY (?!.*NOT VALID)",
    "no row is rewritten in the transaction that changes the table": r"^\s*UPDATE ",
}


def breaks(statement: str, created: set[str]) -> list[str]:
    """Return the rules that a statement breaks; a table that the same upgrade created is nobody's yet."""
    if any(re.search(rf"\b(ON|TABLE) {table}\b", statement) for table in created):
        return []
    return [rule for rule, pattern in RULES.items() if re.search(pattern, statement, re.IGNORECASE | re.DOTALL)]


def unlisted(database: Database) -> list[str]:
    """Return what is sent by the revisions that may run while old workers do; those that may not are passed over."""
    statements: list[str] = []
    for revision in sorted(STOPS_OLD_WORKERS):
        statements += schema.script(database.url, f"{revision}-1")
        database.upgrade(revision)
    return statements + schema.script(database.url)


def test_the_revisions_can_run_beside_workers_of_the_version_before(database: Database) -> None:
    database.fill(OLDEST)
    statements = [it for it in unlisted(database) if "alembic_version" not in it]
    created = {found[1] for it in statements if (found := re.search(r"CREATE TABLE (\w+)", it))}
    assert [(it, broken) for it in statements if (broken := breaks(it, created))] == []


def test_what_stops_old_workers_is_a_revision_and_says_why() -> None:
    assert FILL.keys() > STOPS_OLD_WORKERS.keys()
    assert all(STOPS_OLD_WORKERS.values())
    assert max(FILL) == NEWEST


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX a ON commands (b)",
        "ALTER TABLE commands ADD COLUMN b bigint NOT NULL",
        "ALTER TABLE commands ALTER COLUMN b TYPE bigint",
        "ALTER TABLE commands DROP COLUMN b",
        "ALTER TABLE commands ADD CONSTRAINT c FOREIGN KEY (b) REFERENCES students (id)",
        "UPDATE commands SET b = 1",
    ],
)
def test_each_rule_finds_what_breaks_it(statement: str) -> None:
    assert len(breaks(statement, {"brand_new"})) == 1


def test_a_migration_waits_for_a_table_in_use_and_then_goes_on(database: Database) -> None:
    database.fill(OLDEST)
    with psycopg.connect(database.url) as other:
        other.execute("SELECT FROM commands")  # open until the timer: longer than one wait for a lock
        timer = threading.Timer(3, other.rollback)
        timer.start()
        database.upgrade()
        timer.join()
    database.check()
