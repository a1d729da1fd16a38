"""What the database does by itself when rows vanish, from revision 0009 on."""

import psycopg
import pytest

from tests.migration.steps import Database

TOLD = "SELECT student_id, source, unenrolled FROM commands WHERE content_hash = '' ORDER BY student_id, source"


def told(database: Database) -> list[tuple[int, str, list[int]]]:
    return database.connection.execute(TOLD).fetchall()


def test_marks_stay_when_the_ids_they_name_are_deleted(database: Database) -> None:
    database.fill("0007")
    before = {table: database.rows()[table] for table in ("tombstones", "replace_marks")}
    database.upgrade("0009")
    database.run("DELETE FROM student_courses; DELETE FROM students; DELETE FROM courses")
    assert told(database)[0] == (1, "database:row-deleted", [101, 102])
    after = database.rows()
    assert all(row in after[table] for table in before for row in before[table])


def test_after_a_downgrade_the_marks_of_ids_that_are_there_remain_and_nothing_is_told(database: Database) -> None:
    database.fill("0009")
    database.run("DELETE FROM deferred_commands")
    database.downgrade("0007")
    assert database.connection.execute("SELECT student_id, course_id FROM tombstones").fetchall() == [(2, 102)]
    assert database.connection.execute("SELECT student_id FROM replace_marks").fetchall() == [(1,)]
    before = told(database)
    database.run("DELETE FROM student_courses; DELETE FROM students WHERE id = 2")
    assert told(database) == before
    assert database.value("SELECT count(*) FROM tombstones") == 0
    database.upgrade()
    database.check()


def test_a_table_of_another_system_that_cascades_tells_what_goes(database: Database) -> None:
    database.run("""
        CREATE TABLE students (id serial PRIMARY KEY);
        CREATE TABLE courses (id serial PRIMARY KEY);
        CREATE TABLE student_courses (
            id serial PRIMARY KEY,
            student_id integer REFERENCES students ON DELETE CASCADE ON UPDATE CASCADE,
            course_id integer REFERENCES courses ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO students SELECT generate_series(1, 3);
        INSERT INTO courses SELECT generate_series(101, 102);
        INSERT INTO student_courses (student_id, course_id) SELECT s.id, c.id FROM students AS s, courses AS c;
    """)
    database.upgrade()
    database.run("DELETE FROM students WHERE id < 3")
    database.run("DELETE FROM courses WHERE id = 101")
    assert told(database) == [
        (1, "catalog:student-deleted", [101, 102]),
        (2, "catalog:student-deleted", [101, 102]),
        (3, "catalog:course-deleted", [101]),
    ]
    assert database.value("SELECT sum(cardinality(command_ids)) FROM outbox") == 3
    assert database.value("SELECT count(*) FROM tombstones") == 5


@pytest.mark.parametrize("schema", ["school", "the School"])
def test_in_a_schema_of_its_own_it_is_told_whatever_the_search_path_of_who_deletes(
    database: Database, schema: str
) -> None:
    database.connection.execute(
        f"""
            DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = "{schema}"', current_database()); END $$;
            CREATE SCHEMA "{schema}";
        """.encode()
    )
    database.upgrade()
    with psycopg.connect(database.url, autocommit=True) as inside:
        inside.execute("INSERT INTO students (id) VALUES (1)")
        inside.execute("INSERT INTO courses (id) VALUES (101)")
        inside.execute("INSERT INTO student_courses (student_id, course_id) VALUES (1, 101)")
    with psycopg.connect(database.url, autocommit=True) as outside:
        outside.execute("SET search_path = pg_catalog")
        outside.execute(f'DELETE FROM "{schema}".student_courses'.encode())
        outside.execute(f'SET search_path = "{schema}"'.encode())
        assert outside.execute(TOLD.encode()).fetchall() == [(1, "database:row-deleted", [101])]
    database.downgrade("0007")
    database.upgrade()
