from collections.abc import Callable
from typing import Any

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from enrollment.errors import UnknownCourse, UnknownStudent
from models import queries
from models.queries import CourseRow, Page, StudentWithCourses
from tests.integration.conftest import counted
from tests.integration.queries.conftest import ALGEBRA, ANA, BIOLOGY, BO, CHEMISTRY, LI_LEI

BEYOND_BIGINT = (2**63, -(2**63) - 1, 10**30)


def test_a_student_and_a_course_are_found_by_id(connection: Connection) -> None:
    assert queries.student(connection, 2) == LI_LEI
    assert queries.course(connection, 102) == BIOLOGY


def test_students_and_courses_are_found_by_sis_id_and_unknown_ones_are_left_out(connection: Connection) -> None:
    names = ["s-1", "s-3", "s-404", 'with "quotes", {braces} and \\', "nul \x00", "half \ud800"]
    assert queries.students_by_sis_id(connection, names) == {"s-1": ANA, "s-3": BO}
    assert queries.courses_by_sis_id(connection, ["c-103"]) == {"c-103": CHEMISTRY}
    assert queries.courses_by_sis_id(connection, []) == {}


def test_a_sis_id_of_any_characters_is_found(connection: Connection) -> None:
    strange = 'with "quotes", {braces}, NULL and \\ 李'
    connection.execute(text("UPDATE students SET sis_id = :sis_id WHERE id = 2"), {"sis_id": strange})
    assert queries.students_by_sis_id(connection, [strange])[strange].id == 2


def test_an_unknown_id_is_an_error_that_names_it(connection: Connection) -> None:
    with pytest.raises(UnknownStudent, match="no student 404"):
        queries.student(connection, 404)
    with pytest.raises(UnknownCourse, match="no course 404"):
        queries.course(connection, 404)
    with pytest.raises(UnknownStudent, match="404"):
        queries.courses_of(connection, 404)
    with pytest.raises(UnknownCourse, match="404"):
        queries.students_in(connection, 404)
    with pytest.raises(UnknownStudent, match="404"):
        queries.is_enrolled(connection, 404, 405)
    with pytest.raises(UnknownCourse, match="405"):
        queries.is_enrolled(connection, 1, 405)
    with pytest.raises(UnknownStudent, match="404"):
        queries.history(connection, 404, 101)
    with pytest.raises(UnknownCourse, match="405"):
        queries.history(connection, 1, 405)


@pytest.mark.parametrize("number", BEYOND_BIGINT)
def test_a_number_that_cannot_be_an_id_is_unknown_and_never_reaches_the_database(
    connection: Connection, number: int
) -> None:
    with counted() as statements:
        for ask in (queries.student, queries.courses_of):
            with pytest.raises(UnknownStudent):
                ask(connection, number)
        for ask_course in (queries.course, queries.students_in):
            with pytest.raises(UnknownCourse):
                ask_course(connection, number)
        for ask_pair in (queries.is_enrolled, queries.history):
            with pytest.raises(UnknownStudent):
                ask_pair(connection, number, 101)
            with pytest.raises(UnknownCourse):
                ask_pair(connection, 1, number)
    assert statements == []


# Who is enrolled in what


def test_the_courses_of_a_student_come_in_order_of_id(connection: Connection) -> None:
    assert queries.courses_of(connection, 1) == [ALGEBRA, BIOLOGY]


def test_a_student_without_courses_has_an_empty_list(connection: Connection) -> None:
    assert queries.courses_of(connection, 3) == []


def test_the_courses_of_several_students_come_in_the_order_in_which_they_are_asked_for(connection: Connection) -> None:
    asked = [3, 1, 404, 2, 1, 10**30]
    expected = [[], [ALGEBRA, BIOLOGY], None, [ALGEBRA], [ALGEBRA, BIOLOGY], None]
    assert queries.courses_of_each(connection, asked) == expected


def test_the_students_in_a_course_come_page_by_page(connection: Connection) -> None:
    first = queries.students_in(connection, 101, limit=1)
    assert first == Page([ANA], after=1)
    assert queries.students_in(connection, 101, after=first.after, limit=1) == Page([LI_LEI], after=None)
    assert queries.students_in(connection, 101, after=2) == Page([], after=None)


def test_a_course_without_students_has_an_empty_page(connection: Connection) -> None:
    assert queries.students_in(connection, 103) == Page([], after=None)


def test_whether_a_student_is_enrolled_is_yes_or_no(connection: Connection) -> None:
    assert queries.is_enrolled(connection, 1, 101) is True
    assert queries.is_enrolled(connection, 3, 101) is False


def test_all_students_come_with_their_courses_and_those_without_courses_too(connection: Connection) -> None:
    assert queries.students_with_courses(connection) == Page(
        [
            StudentWithCourses(ANA, (ALGEBRA, BIOLOGY)),
            StudentWithCourses(LI_LEI, (ALGEBRA,)),
            StudentWithCourses(BO, ()),
        ],
        after=None,
    )


Listing = Callable[..., Page[object]]


@pytest.mark.parametrize("listing", [queries.students, queries.courses, queries.students_with_courses])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_put_together_are_the_whole(connection: Connection, listing: Listing, limit: int) -> None:
    found, after, pages = [], None, 0
    while pages == 0 or after is not None:
        page = listing(connection, after=after, limit=limit)
        found += page.items
        after, pages = page.after, pages + 1
    assert found == listing(connection).items
    assert (len(found), pages) == (3, -(-3 // limit))


@pytest.mark.parametrize("listing", [queries.students, queries.courses, queries.students_with_courses])
def test_where_there_is_nothing_the_page_is_empty(empty: Connection, listing: Listing) -> None:
    assert listing(empty) == Page([], after=None)


@pytest.mark.parametrize("listing", [queries.students, queries.courses, queries.students_with_courses])
def test_a_page_after_any_number_is_a_page(connection: Connection, listing: Listing) -> None:
    assert len(listing(connection, after=-(10**30)).items) == 3
    assert listing(connection, after=10**30).items == []
    assert len(listing(connection, limit=-5).items) == 1
    assert len(listing(connection, limit=10**30).items) == 3


@pytest.mark.parametrize(
    ("ask", "statements"),
    [
        (lambda c: queries.student(c, 1), 1),
        (queries.students, 1),
        (lambda c: queries.courses_of(c, 1), 1),
        (lambda c: queries.courses_of_each(c, [1, 2, 3]), 1),
        (lambda c: queries.students_in(c, 101), 1),
        (queries.students_with_courses, 1),
        (lambda c: queries.is_enrolled(c, 1, 101), 1),
    ],
    ids=["student", "students", "courses_of", "courses_of_each", "students_in", "students_with_courses", "is_enrolled"],
)
@pytest.mark.parametrize("more", [0, 500])
def test_the_number_of_statements_does_not_grow_with_the_rows(
    connection: Connection, ask: Callable[[Connection], object], statements: int, more: int
) -> None:
    connection.execute(text("INSERT INTO students (id) SELECT 1000 + n FROM generate_series(1, :n) n"), {"n": more})
    connection.execute(text("INSERT INTO courses (id) SELECT 1000 + n FROM generate_series(1, :n) n"), {"n": more})
    connection.execute(
        text("INSERT INTO student_courses SELECT 1000 + n, 101 FROM generate_series(1, :n) n"), {"n": more}
    )
    connection.execute(
        text("INSERT INTO student_courses SELECT 1, 1000 + n FROM generate_series(1, :n) n"), {"n": more}
    )
    with counted() as sent:
        ask(connection)
    assert len(sent) == statements


def test_names_that_are_null_in_a_table_of_another_system_are_empty(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE students ALTER COLUMN name DROP NOT NULL"))
    connection.execute(text("ALTER TABLE courses ALTER COLUMN code DROP NOT NULL, ALTER COLUMN title DROP NOT NULL"))
    connection.execute(text("UPDATE students SET name = NULL"))
    connection.execute(text("UPDATE courses SET code = NULL, title = NULL"))
    assert queries.student(connection, 1).name == ""
    [first, *_] = queries.students_with_courses(connection).items
    assert first.courses[0] == CourseRow(101, "c-101", "", "")


# Whose connection it is


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: queries.courses_of(c, 1),
        lambda c: queries.students_in(c, 101),
        lambda c: queries.courses(c, limit=2),
        queries.students_with_courses,
    ],
    ids=["courses_of", "students_in", "courses", "students_with_courses"],
)
def test_a_program_with_an_engine_of_its_own_is_told_the_same(
    connection: Connection, database_url: str, ask: Callable[[Connection], object]
) -> None:
    engine = create_engine(database_url)
    with engine.connect() as theirs:
        assert ask(theirs) == ask(connection)
    engine.dispose()


def test_a_lookup_is_part_of_the_transaction_of_its_connection(connection: Connection) -> None:
    queries.courses_of(connection, 1)
    assert connection.in_transaction()
    connection.commit()
    session: Any = connection.connection.driver_connection
    assert session.info.transaction_status == TransactionStatus.IDLE


def test_a_lookup_over_a_lost_connection_is_an_error_of_sqlalchemy_and_lets_go_of_it(
    connection: Connection, engine: Engine
) -> None:
    pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with engine.begin() as another:
        another.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with pytest.raises(OperationalError):
        queries.students_with_courses(connection)
    assert connection.invalidated
