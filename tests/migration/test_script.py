"""`enrollment migrate --sql`: the SQL that an upgrade would run, for somebody else to run."""

import psycopg
import pytest

from tests.migration.steps import Database
from tests.migration.test_adoption import BARE, PAIRS
from tests.migration.test_revisions import REVISIONS
from worker import schema


def run(database: Database, statements: list[str]) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


SERIAL = """
    CREATE TABLE students (id serial PRIMARY KEY, name text NOT NULL);
    INSERT INTO students (id, name) VALUES (70, 'Cy');
"""


@pytest.mark.parametrize(
    "setup", ["", BARE, BARE + PAIRS, SERIAL], ids=["empty", "with a catalog", "with enrollments", "with a serial"]
)
def test_the_sql_does_what_the_upgrade_does(database: Database, setup: str) -> None:
    database.connection.execute(setup.encode())
    before = database.rows()
    statements = schema.script(database.url)
    assert database.rows() == before
    run(database, statements)
    database.check()
    assert database.keeps(before)
    assert schema.script(database.url) == []
    assert database.value("INSERT INTO students (name) VALUES ('Ana') RETURNING id") == 1 + max(
        [0, *(row["id"] for row in before.get("students", []))]
    )
    assert database.value("SELECT format_type(seqtypid, NULL) FROM pg_sequence LIMIT 1") == "bigint"


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_from_every_revision_the_sql_goes_on_to_the_newest(database: Database, revision: str) -> None:
    database.fill(revision)
    before = database.rows()
    run(database, schema.script(database.url))
    database.check()
    assert database.keeps(before)


def test_writing_the_sql_down_locks_nothing_that_a_worker_needs(database: Database) -> None:
    database.fill("0003")
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE students, courses, student_courses, commands IN ROW EXCLUSIVE MODE")
        assert "COMMIT" in schema.script(database.url)


def test_an_index_of_a_table_in_use_is_written_down_outside_of_a_transaction(database: Database) -> None:
    database.fill("0006")
    statements = schema.script(database.url)
    place = next(i for i, statement in enumerate(statements) if "CONCURRENTLY" in statement)
    assert statements[:place].count("BEGIN") == statements[:place].count("COMMIT")
