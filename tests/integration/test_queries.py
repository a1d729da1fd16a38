from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event, text

from enrollment.commands import Enroll, Kind, Replace, Unenroll
from enrollment.errors import ErrorCode, UnknownCommand, UnknownCourse, UnknownStudent
from enrollment.fold import Record, fold
from enrollment.parsing import Request, parse_single
from models import ledger, queries
from models.queries import CourseRow, Page, StudentRow, StudentWithCourses

ANA = StudentRow(1, "s-1", "Ana")
LI_LEI = StudentRow(2, None, "李雷 🎓")
BO = StudentRow(3, "s-3", "")
ALGEBRA = CourseRow(101, "c-101", "MAT", "Algebra")
BIOLOGY = CourseRow(102, None, "", "Biología")
CHEMISTRY = CourseRow(103, "c-103", "CHE", "")
BEYOND_BIGINT = (2**63, -(2**63) - 1, 10**30)


@pytest.fixture
def empty(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def connection(empty: Connection) -> Connection:
    """Three students, three courses; Ana is in two of them, Li Lei in one, Bo in none."""
    for student in (ANA, LI_LEI, BO):
        empty.execute(text("INSERT INTO students (id, sis_id, name) VALUES (:id, :sis_id, :name)"), student._asdict())
    for course in (ALGEBRA, BIOLOGY, CHEMISTRY):
        statement = text("INSERT INTO courses (id, sis_id, code, title) VALUES (:id, :sis_id, :code, :title)")
        empty.execute(statement, course._asdict())
    empty.execute(text("INSERT INTO student_courses (student_id, course_id) VALUES (1, 102), (1, 101), (2, 101)"))
    empty.commit()
    return empty


@contextmanager
def counted(connection: Connection) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(connection.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(connection.engine, "before_cursor_execute", note)


def process(connection: Connection, *requests: Request) -> None:
    """Do what the worker does with one batch."""
    students, _ = ledger.lock_students(
        connection, {r.student_id for r in requests if r.student_id is not None}, wait=True
    )
    courses = {course_id for r in requests for course_id in r.course_ids or ()}
    state, now = ledger.read_state(connection, students, courses, [r.command_id for r in requests])
    folded = fold(state, requests, now)
    ledger.write_changes(connection, folded.changes)
    records = [verdict for verdict in folded.verdicts if isinstance(verdict, Record)]
    ledger.write_commands(connection, records, uuid4())
    connection.commit()


def at(hour: int) -> datetime:
    return datetime(2026, 1, 31, hour, tzinfo=UTC)


def enroll(hour: int, *course_ids: int, student_id: int = 1) -> Enroll:
    return Enroll(command_id=uuid4(), student_id=student_id, course_ids=course_ids, issued_at=at(hour))


def unenroll(hour: int, *course_ids: int) -> Unenroll:
    return Unenroll(command_id=uuid4(), student_id=1, course_ids=course_ids, issued_at=at(hour))


def replace(hour: int, *course_ids: int) -> Replace:
    return Replace(command_id=uuid4(), student_id=1, course_ids=course_ids, issued_at=at(hour))


# Lookups


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
    with counted(connection) as statements:
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
        (lambda c: queries.students_in(c, 101), 1),
        (queries.students_with_courses, 1),
        (lambda c: queries.is_enrolled(c, 1, 101), 1),
    ],
    ids=["student", "students", "courses_of", "students_in", "students_with_courses", "is_enrolled"],
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
    with counted(connection) as sent:
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


# What came of a command


def test_the_record_of_a_command_says_what_was_asked_and_what_came_of_it(connection: Connection) -> None:
    asked = Enroll(
        command_id=uuid4(),
        student_id=1,
        course_ids=(103, 101),
        issued_at=at(9),
        source="portal",
    )
    process(connection, asked)
    record = queries.command(connection, asked.command_id)
    assert (record.command, record.student_id, record.course_ids) == (Kind.ENROLL, 1, (103, 101))
    assert (record.issued_at, record.source, record.outcome) == (at(9), "portal", "applied")
    assert record.effects._asdict() == {
        "enrolled": (103,),
        "unenrolled": (),
        "unchanged": (101,),
        "superseded": (),
    }
    assert record.errors == ()


def test_the_record_of_an_invalid_command_has_none_for_what_it_did_not_say(connection: Connection) -> None:
    invalid = parse_single(Kind.ENROLL, uuid4(), (), {"course_ids": "101"})
    process(connection, invalid)
    record = queries.command(connection, invalid.command_id)
    assert (record.outcome, record.student_id, record.course_ids) == ("rejected", None, None)
    assert [error.code for error in record.errors] == [ErrorCode.INVALID_COMMAND]


def test_a_command_that_was_not_processed_is_unknown(connection: Connection) -> None:
    with pytest.raises(UnknownCommand, match="00000000-0000-0000-0000-000000000001"):
        queries.command(connection, UUID(int=1))


# The history of a pair


def told(connection: Connection, course_id: int, **options: int) -> list[tuple[UUID, str | None, bool]]:
    entries = queries.history(connection, 1, course_id, **options)
    return [(entry.record.command_id, entry.effect, entry.owns) for entry in entries]


def test_the_history_of_a_pair_comes_in_order_of_stamp_whatever_the_order_of_arrival(connection: Connection) -> None:
    first, second, third = enroll(9, 103), unenroll(10, 103, 101), enroll(11, 103)
    for late in (third, first, second):
        process(connection, late)
    assert told(connection, 103) == [
        (first.command_id, "superseded", False),
        (second.command_id, "superseded", False),
        (third.command_id, "enrolled", True),
    ]
    assert told(connection, 101) == [(second.command_id, "unenrolled", True)]


def test_the_history_names_the_replace_that_took_the_course_away_without_naming_it(connection: Connection) -> None:
    first, second = enroll(9, 103), replace(10, 101)
    process(connection, first, second)
    assert told(connection, 103) == [(first.command_id, "enrolled", False), (second.command_id, "unenrolled", True)]
    assert told(connection, 101) == [(second.command_id, "unchanged", True)]


def test_a_replace_that_left_the_course_out_owns_the_pair_though_it_had_nothing_to_take(connection: Connection) -> None:
    decides, late = replace(10, 101), enroll(9, 103)
    process(connection, decides)
    process(connection, late)
    assert told(connection, 103) == [(late.command_id, "superseded", False), (decides.command_id, None, True)]


def test_a_rejected_command_is_in_the_history_without_an_effect(connection: Connection) -> None:
    rejected, applied = enroll(10, 103, 404), enroll(9, 103)
    process(connection, rejected, applied)
    assert told(connection, 103) == [(applied.command_id, "enrolled", True), (rejected.command_id, None, False)]
    with pytest.raises(UnknownCourse):
        queries.history(connection, 1, 404)


def test_a_pair_that_is_older_than_the_worker_has_no_history_and_belongs_to_no_command(connection: Connection) -> None:
    assert told(connection, 101) == []
    again = enroll(9, 101)
    process(connection, again)
    assert told(connection, 101) == [(again.command_id, "unchanged", True)]


def test_other_students_and_other_courses_are_not_in_the_history(connection: Connection) -> None:
    process(connection, enroll(9, 103, student_id=2), enroll(9, 102))
    assert told(connection, 103) == []


def test_a_long_history_is_cut_to_the_newest(connection: Connection) -> None:
    commands = [enroll(hour, 103) for hour in range(5)]
    process(connection, *commands)
    with counted(connection) as statements:
        assert [entry[0] for entry in told(connection, 103, limit=2)] == [c.command_id for c in commands[3:]]
    assert len(statements) == 1
