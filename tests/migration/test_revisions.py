"""Up and down through the revisions, over tables with rows in them."""

from itertools import pairwise

import pytest
from alembic import command
from alembic.util import CommandError

from tests.migration.steps import FILL, Database, alembic_config

REVISIONS = list(FILL)


def test_each_revision_keeps_every_row_of_those_before(database: Database) -> None:
    for revision in REVISIONS:
        before = database.rows()
        database.upgrade(revision)
        assert database.keeps(before), revision
        database.run(FILL[revision])
    database.check()


def test_upgrading_from_the_first_release_at_once_keeps_every_row(database: Database) -> None:
    database.fill("0007")
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    database.check()


def test_the_migrated_database_is_what_the_models_say(database: Database) -> None:
    database.upgrade()
    database.check()


def test_a_column_that_the_models_do_not_have_in_a_table_of_ours_is_drift(database: Database) -> None:
    database.upgrade()
    database.run("ALTER TABLE commands ADD COLUMN forgotten text")
    with pytest.raises(CommandError, match="forgotten"):
        database.check()


def test_downgrading_keeps_the_rows_of_the_tables_that_remain(database: Database) -> None:
    database.fill("0005")
    before = database.rows()
    for revision in ("0004", "0003", "0002", "0001", "base"):
        database.downgrade(revision)
        after = database.rows()
        assert {"students", "courses"} <= after.keys()
        for table, rows in after.items():
            assert rows == [{column: row[column] for column in rows[0]} for row in before[table]]


def test_downgrading_to_the_first_revision_leaves_students_and_courses_alone(database: Database) -> None:
    database.fill("0005")
    database.downgrade("0001")
    assert database.tables() == {"students", "courses"}


def test_after_a_downgrade_the_upgrade_can_be_made_again(database: Database) -> None:
    database.fill("0005")
    before = {table: rows for table, rows in database.rows().items() if table in ("students", "courses")}
    database.downgrade("base")
    database.upgrade()
    assert database.keeps(before)
    database.check()


def test_every_revision_can_be_undone_and_made_again_one_by_one(database: Database) -> None:
    for earlier, later in pairwise(["base", *REVISIONS]):
        database.upgrade(later)
        database.downgrade(earlier)
        database.upgrade(later)
    database.check()


def test_ids_are_assigned_where_none_is_given(database: Database) -> None:
    database.upgrade()
    assert database.value("INSERT INTO students DEFAULT VALUES RETURNING id") == 1
    assert database.value("INSERT INTO courses (id) VALUES (7) RETURNING id") == 7


def test_the_revisions_cannot_be_written_down_without_looking_at_the_database() -> None:
    with pytest.raises(CommandError, match="--sql"):
        command.upgrade(alembic_config("postgresql://nowhere/nothing"), "head", sql=True)
