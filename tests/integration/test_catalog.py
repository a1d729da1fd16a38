from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from models import queries
from models.catalog import (
    BadRow,
    Counts,
    NewCourse,
    NewStudent,
    RepeatedRow,
    RowsRefused,
    SequenceBehind,
    SisIdTaken,
    upsert_courses,
    upsert_students,
)
from models.queries import CourseRow, StudentRow
from tests.integration.conftest import counted


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def students(connection: Connection) -> list[StudentRow]:
    return queries.students(connection).items


def test_ids_that_are_not_given_are_assigned_in_the_order_of_the_rows(connection: Connection) -> None:
    counts = upsert_students(
        connection, [NewStudent(sis_id="s-b", name="Bo"), NewStudent(sis_id="s-a", name="李雷 🎓")]
    )
    assert counts == Counts(inserted=2, updated=0, unchanged=0)
    assert students(connection) == [StudentRow(1, "s-b", "Bo"), StudentRow(2, "s-a", "李雷 🎓")]


def test_ids_that_are_given_are_kept_and_later_ones_begin_past_them(connection: Connection) -> None:
    rows = [NewStudent(sis_id="s-1"), NewStudent(id=70, name="Ana"), NewStudent(id=7)]
    assert upsert_students(connection, rows).inserted == 3
    assert students(connection) == [StudentRow(7, None, ""), StudentRow(70, None, "Ana"), StudentRow(71, "s-1", "")]
    connection.execute(text("INSERT INTO students (name) VALUES ('by another system')"))
    assert students(connection)[-1].id == 72


def test_a_low_id_does_not_move_the_next_one_back(connection: Connection) -> None:
    upsert_courses(connection, [NewCourse(id=100)])
    connection.execute(text("INSERT INTO courses DEFAULT VALUES"))
    upsert_courses(connection, [NewCourse(id=5)])
    connection.execute(text("INSERT INTO courses DEFAULT VALUES"))
    assert [course.id for course in queries.courses(connection).items] == [5, 100, 101, 102]


def test_the_same_rows_a_second_time_change_nothing(connection: Connection) -> None:
    rows = [NewCourse(sis_id="c-1", code="MAT", title="Algebra"), NewCourse(id=9, title="Biología")]
    assert upsert_courses(connection, rows) == Counts(2, 0, 0)
    assert upsert_courses(connection, rows) == Counts(0, 0, 2)


def test_rows_are_matched_by_id_else_by_sis_id_and_only_those_that_differ_are_written(connection: Connection) -> None:
    upsert_courses(connection, [NewCourse(1, "c-1", "A", "a"), NewCourse(2, "c-2", "B", "b"), NewCourse(3, "c-3", "C")])
    counts = upsert_courses(
        connection, [NewCourse(sis_id="c-1", title="new"), NewCourse(2, "c-2-new"), NewCourse(3, "c-3"), NewCourse(4)]
    )
    assert counts == Counts(inserted=1, updated=2, unchanged=1)
    assert queries.courses(connection).items == [
        CourseRow(1, "c-1", "A", "new"),
        CourseRow(2, "c-2-new", "B", "b"),
        CourseRow(3, "c-3", "C", ""),
        CourseRow(4, None, "", ""),
    ]


def test_no_rows_are_no_error(connection: Connection) -> None:
    assert upsert_students(connection, []) == Counts(0, 0, 0)


def test_several_loads_fit_in_one_transaction(connection: Connection) -> None:
    upsert_students(connection, [NewStudent(id=1)])
    upsert_courses(connection, [NewCourse(id=1, title="1")])
    assert upsert_students(connection, [NewStudent(id=1, name="Ana"), NewStudent(id=2)]) == Counts(1, 1, 0)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (NewStudent(name="Nobody"), "neither an id nor a sis_id"),
        (NewStudent(sis_id=""), "neither an id nor a sis_id"),
        (NewStudent(id=0), "the id is not an integer from 1 to 9223372036854775807"),
        (NewStudent(id=2**63), "the id is not an integer"),
        (NewStudent(id=True), "the id is not an integer"),
        (NewStudent(id="5"), "the id is not an integer"),  # type: ignore[arg-type]
        (NewStudent(id=1, name="nul \x00"), "the name is not a text"),
        (NewStudent(id=1, name="half \ud800"), "the name is not a text"),
        (NewStudent(sis_id="\x00"), "the sis_id is not a text"),
        (NewStudent(id=1, name=5), "the name is not a text"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_row_is_named_by_its_line_and_nothing_is_loaded(
    connection: Connection, row: NewStudent, fault: str
) -> None:
    with pytest.raises(BadRow, match=f"Line 3: .*{fault}") as raised:
        upsert_students(connection, [NewStudent(id=1), row], first_line=2)
    assert raised.value.line == 3
    connection.rollback()
    assert students(connection) == []


@pytest.mark.parametrize(
    "rows",
    [
        [NewStudent(id=5), NewStudent(id=6), NewStudent(id=5)],
        [NewStudent(id=5, sis_id="twice"), NewStudent(id=6), NewStudent(sis_id="twice")],
        [NewStudent(id=1, name="by id"), NewStudent(id=6), NewStudent(sis_id="s-1", name="by sis_id")],
    ],
    ids=["id", "sis_id", "id and sis_id"],
)
def test_two_rows_about_the_same_student_are_named_by_their_lines(
    connection: Connection, rows: list[NewStudent]
) -> None:
    upsert_students(connection, [NewStudent(id=1, sis_id="s-1")])
    with pytest.raises(RepeatedRow, match="Line 3 is about the same one as line 1") as raised:
        upsert_students(connection, rows)
    assert (raised.value.line, raised.value.first) == (3, 1)


def test_a_sis_id_that_belongs_to_another_is_named_with_the_other(connection: Connection) -> None:
    upsert_students(connection, [NewStudent(id=1, sis_id="s-1")])
    with pytest.raises(SisIdTaken, match="Line 2: the sis_id s-1 belongs to id 1") as raised:
        upsert_students(connection, [NewStudent(id=3), NewStudent(id=2, sis_id="s-1")])
    assert (raised.value.line, raised.value.sis_id, raised.value.owner) == (2, "s-1", 1)


def test_a_rule_of_another_systems_table_is_told_in_one_sentence(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE students ADD COLUMN born date NOT NULL"))
    with pytest.raises(RowsRefused, match='null value in column "born"'):
        upsert_students(connection, [NewStudent(id=1)])


def test_a_sequence_that_is_behind_ids_given_by_others_is_told_with_what_to_do(connection: Connection) -> None:
    connection.execute(text("INSERT INTO courses (id) VALUES (1)"))
    with pytest.raises(SequenceBehind, match="The next id of courses is taken") as raised, connection.begin_nested():
        upsert_courses(connection, [NewCourse(sis_id="c-1")])
    connection.execute(text(str(raised.value).partition("psql: ")[2].partition(";")[0]))
    assert upsert_courses(connection, [NewCourse(sis_id="c-1")]) == Counts(1, 0, 0)


def test_the_number_of_statements_does_not_grow_with_the_rows(connection: Connection) -> None:
    with counted() as few:
        upsert_students(connection, [NewStudent(id=1, sis_id="s-1")])
    with counted() as many:
        upsert_students(connection, (NewStudent(id=n, sis_id=f"s-{n}") for n in range(1, 5001)))
    assert len(many) == len(few)


def test_two_loads_of_the_same_rows_at_once_add_each_once(engine: Engine) -> None:
    rows = [NewStudent(sis_id=f"s-{n}", name=str(n)) for n in range(500)]

    def load(rows: list[NewStudent]) -> Counts:
        with engine.begin() as connection:
            return upsert_students(connection, rows)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(load, [rows, rows[::-1]])
    assert sorted([first, second]) == [Counts(0, 0, 500), Counts(500, 0, 0)]


def test_while_a_load_is_under_way_other_students_can_be_enrolled(engine: Engine) -> None:
    with engine.begin() as connection:
        upsert_students(connection, [NewStudent(id=1, name="Ana"), NewStudent(id=2)])
    with engine.connect() as loading, engine.connect() as enrolling:
        upsert_students(loading, [NewStudent(id=1, name="Anna")])
        enrolling.execute(text("SELECT id FROM students WHERE id = 2 FOR NO KEY UPDATE NOWAIT")).one()
        loading.commit()
        enrolling.execute(text("SELECT id FROM students WHERE id = 1 FOR NO KEY UPDATE NOWAIT")).one()
