"""Systems that had students, courses or student_courses before: nothing is lost, and what is missing is added."""

import pytest
from alembic.util import CommandError
from psycopg.errors import UniqueViolation

from tests.migration.steps import Database

BARE = """
    CREATE TABLE students (id bigint PRIMARY KEY);
    CREATE TABLE courses (id bigint PRIMARY KEY);
    INSERT INTO students SELECT generate_series(1, 1000);
    INSERT INTO courses SELECT generate_series(101, 150);
"""
PAIRS = """
    CREATE TABLE student_courses (student_id bigint, course_id bigint);
    INSERT INTO student_courses SELECT s, 101 + s % 50 FROM generate_series(1, 1000) AS s;
"""


def test_tables_with_an_id_alone_get_what_is_missing(database: Database) -> None:
    database.run(BARE)
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    assert database.rows()["students"][0] == {"id": 1, "sis_id": None, "name": ""}
    assert database.rows()["courses"][0] == {"id": 101, "sis_id": None, "code": "", "title": ""}
    database.check()


def test_new_ids_begin_past_the_highest_there_is(database: Database) -> None:
    database.run(BARE)
    database.upgrade()
    assert database.value("INSERT INTO students (name) VALUES ('Ana') RETURNING id") == 1001
    assert database.value("INSERT INTO courses (title) VALUES ('Algebra') RETURNING id") == 151


def test_columns_and_rows_of_others_stay_as_they_are(database: Database) -> None:
    database.run("""
        CREATE TABLE students (id bigint PRIMARY KEY, name varchar(80), email text UNIQUE, born date NOT NULL);
        CREATE INDEX students_born_idx ON students (born);
        INSERT INTO students VALUES (5, NULL, 'a@example.org', '2001-02-03'), (6, 'Bo', NULL, '2002-03-04');
        CREATE TABLE rooms (id serial PRIMARY KEY, warden bigint REFERENCES students);
        INSERT INTO rooms (warden) VALUES (5);
    """)
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    database.check()
    database.downgrade("base")
    assert database.keeps(before)


def test_a_serial_id_goes_on_with_its_own_sequence_as_a_bigint(database: Database) -> None:
    database.run("""
        CREATE TABLE students (id serial PRIMARY KEY, name text NOT NULL);
        INSERT INTO students (name) VALUES ('Ana'), ('Bo');
        INSERT INTO students (id, name) VALUES (70, 'Cy');
    """)
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    assert database.value("SELECT nextval('students_id_seq')") == 71
    assert database.value("INSERT INTO students VALUES (9223372036854775807, '') RETURNING id") == 2**63 - 1
    database.check()


def test_an_identity_that_refuses_given_ids_takes_them_afterwards(database: Database) -> None:
    database.run("CREATE TABLE students (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    database.upgrade()
    assert database.value("INSERT INTO students (id) VALUES (5) RETURNING id") == 5
    database.check()


def test_a_table_without_a_key_gets_one(database: Database) -> None:
    database.run("CREATE TABLE students (id integer, sis_id text NOT NULL); INSERT INTO students VALUES (1, 's-1')")
    database.upgrade()
    database.run("INSERT INTO students (name) VALUES ('nobody knows the sis_id')")
    assert database.rows()["students"][0] == {"id": 1, "sis_id": "s-1", "name": ""}
    with pytest.raises(Exception, match="students_pkey"):
        database.run("INSERT INTO students (id) VALUES (1)")
    with pytest.raises(Exception, match="students_sis_id_key"):
        database.run("INSERT INTO students (sis_id) VALUES ('s-1')")
    database.check()


@pytest.mark.parametrize(
    ("setup", "sentence"),
    [
        ("CREATE TABLE students (id uuid PRIMARY KEY)", "students.id is of the type uuid; make it a bigint"),
        ("CREATE TABLE students (name text)", "students.id is missing; make it a bigint"),
        ("CREATE TABLE courses (id bigint PRIMARY KEY, code int)", "courses.code is of the type integer; make it text"),
        (
            "CREATE TABLE students AS SELECT id::bigint, 'twice' AS sis_id FROM generate_series(1, 2) AS id",
            "students has rows with the same sis_id; leave one of each",
        ),
    ],
)
def test_a_table_that_cannot_serve_is_refused_with_what_to_do(database: Database, setup: str, sentence: str) -> None:
    database.connection.execute(setup.encode())
    before = database.rows()
    with pytest.raises(CommandError, match=sentence):
        database.upgrade()
    assert database.keeps(before)


def test_after_the_cause_is_mended_the_upgrade_goes_on(database: Database) -> None:
    database.run("CREATE TABLE students (id bigint PRIMARY KEY, sis_id text)")
    database.run("INSERT INTO students VALUES (1, 'twice'), (2, 'twice')")
    with pytest.raises(CommandError):
        database.upgrade()
    database.run("UPDATE students SET sis_id = NULL WHERE id = 2")
    database.upgrade()
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    database.check()


def test_an_upgrade_that_was_cut_off_between_its_steps_goes_on(database: Database) -> None:
    database.run(BARE + PAIRS)
    database.run(
        "ALTER TABLE students ADD COLUMN sis_id text; CREATE UNIQUE INDEX students_sis_id_key ON students (sis_id)"
    )
    database.run("INSERT INTO student_courses VALUES (1, 102), (1, 102)")
    with pytest.raises(UniqueViolation):  # leaves an index that is not valid
        database.run("CREATE UNIQUE INDEX CONCURRENTLY student_courses_pkey ON student_courses (student_id, course_id)")
    database.run("DELETE FROM student_courses WHERE (student_id, course_id) = (1, 102)")
    database.run("ALTER TABLE student_courses ADD FOREIGN KEY (student_id) REFERENCES students NOT VALID")
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert database.value("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    database.check()


def test_pairs_that_were_there_before_stay_and_get_keys(database: Database) -> None:
    database.run(BARE + PAIRS)
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    constraints = database.connection.execute(
        "SELECT conname, convalidated FROM pg_constraint"
        " WHERE conrelid = 'student_courses'::regclass AND contype <> 'n' ORDER BY conname"
    ).fetchall()
    assert constraints == [
        ("student_courses_course_id_fkey", True),
        ("student_courses_pkey", True),
        ("student_courses_student_id_fkey", True),
    ]
    database.check()


def test_pairs_with_a_key_of_their_own_keep_it(database: Database) -> None:
    database.run(BARE)
    database.run("""
        CREATE TABLE student_courses (
            id serial PRIMARY KEY, student_id integer NOT NULL, course_id integer NOT NULL, grade text,
            CONSTRAINT theirs FOREIGN KEY (student_id) REFERENCES students ON DELETE CASCADE NOT VALID);
        INSERT INTO student_courses (student_id, course_id, grade) VALUES (1, 101, 'A'), (1, 102, NULL);
    """)
    before = database.rows()
    database.upgrade()
    assert database.keeps(before)
    database.run("""
        INSERT INTO student_courses (student_id, course_id) VALUES (1, 101)
        ON CONFLICT (student_id, course_id) DO NOTHING
    """)
    assert database.value("SELECT convalidated FROM pg_constraint WHERE conname = 'theirs'") is True
    assert (
        database.value("SELECT count(*) FROM pg_constraint WHERE conname LIKE 'student_courses_student_id_fkey%'") == 0
    )


@pytest.mark.parametrize("revision", ["0001", "base"])
def test_pairs_that_were_there_before_survive_every_downgrade(database: Database, revision: str) -> None:
    database.run(BARE + PAIRS)
    before = database.rows()
    database.upgrade()
    database.downgrade(revision)
    assert database.keeps(before)
    database.upgrade()
    assert database.keeps(before)
    database.check()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("(1, 102), (1, 102)", "student_courses has rows with the same student_id, course_id; leave one of each"),
        ("(5000, 101)", "student_courses has rows whose student_id is not in students; add or delete them"),
        ("(1, NULL)", "student_courses has rows without course_id; complete or delete them"),
        ("(1, 5000)", "student_courses has rows whose course_id is not in courses; add or delete them"),
    ],
)
def test_pairs_that_contradict_the_keys_are_named_and_none_is_lost(database: Database, row: str, sentence: str) -> None:
    database.run(BARE + PAIRS)
    database.connection.execute(f"INSERT INTO student_courses VALUES {row}".encode())
    before = database.rows()
    with pytest.raises(CommandError, match=sentence):
        database.upgrade()
    assert database.keeps(before)
