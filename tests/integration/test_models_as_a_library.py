"""The tables as another program uses them: docs/models.md, with an engine and sessions of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, joinedload, selectinload

from enrollment.names import ENROLL
from models.tables import Course, Student, StudentCourse
from tests.integration.conftest import message
from worker.service import Service


@pytest.fixture
def session(database_url: str, service: Service) -> Iterator[Session]:
    """Give a session of a stranger's; students 1 and 2 are enrolled, 3 to 5 are not."""
    service.handle(
        [
            message(ENROLL, student_id=1, course_ids=[10, 11], issued_at="2026-01-31T09:30:00Z"),
            message(ENROLL, student_id=2, course_ids=[11], issued_at="2026-01-31T09:30:00Z"),
        ]
    )
    engine = create_engine(database_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_students_are_loaded_with_their_courses(session: Session) -> None:
    students = session.scalars(select(Student).options(selectinload(Student.courses)).order_by(Student.id)).all()

    assert [(student.id, sorted(course.code for course in student.courses)) for student in students] == [
        (1, ["C10", "C11"]),
        (2, ["C11"]),
        (3, []),
        (4, []),
        (5, []),
    ]


def test_courses_are_loaded_with_their_students(session: Session) -> None:
    course = session.scalars(select(Course).where(Course.id == 11).options(selectinload(Course.students))).one()

    assert sorted(student.name for student in course.students) == ["S1", "S2"]


def test_enrollments_lead_from_a_student_to_courses_and_say_which_command_decided(session: Session) -> None:
    with_courses = selectinload(Student.enrollments).joinedload(StudentCourse.course)
    student = session.scalars(select(Student).where(Student.id == 1).options(with_courses)).one()

    assert sorted(enrollment.course.code for enrollment in student.enrollments) == ["C10", "C11"]
    assert all(enrollment.command_id for enrollment in student.enrollments)
    assert {f"{enrollment.issued_at:%FT%TZ}" for enrollment in student.enrollments} == {"2026-01-31T09:30:00Z"}


def test_enrollments_lead_from_a_course_to_students(session: Session) -> None:
    with_students = selectinload(Course.enrollments).joinedload(StudentCourse.student)
    course = session.scalars(select(Course).where(Course.id == 11).options(with_students)).one()

    assert sorted(enrollment.student.name for enrollment in course.enrollments) == ["S1", "S2"]


def test_one_enrollment_is_loaded_with_both_of_its_ends(session: Session) -> None:
    both = (joinedload(StudentCourse.student), joinedload(StudentCourse.course))
    enrollment = session.get_one(StudentCourse, {"student_id": 2, "course_id": 11}, options=both)

    assert (enrollment.student.name, enrollment.course.code) == ("S2", "C11")


def test_relationships_join_and_filter(session: Session) -> None:
    joined = select(Student.name, Course.code).join(Student.courses).order_by(Student.id, Course.id)
    idle = select(Student.id).where(~Student.enrollments.any()).order_by(Student.id)

    assert [tuple(row) for row in session.execute(joined)] == [("S1", "C10"), ("S1", "C11"), ("S2", "C11")]
    assert session.scalars(idle).all() == [3, 4, 5]


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (Student, "courses"),
        (Student, "enrollments"),
        (Course, "students"),
        (Course, "enrollments"),
        (StudentCourse, "student"),
        (StudentCourse, "course"),
    ],
)
def test_a_relationship_that_the_query_did_not_load_is_an_error_that_names_it(
    session: Session, table: type[Student | Course | StudentCourse], name: str
) -> None:
    row = session.scalars(select(table).limit(1)).one()

    with pytest.raises(InvalidRequestError) as caught:
        getattr(row, name)

    assert str(caught.value) == f"'{table.__name__}.{name}' is not available due to lazy='raise'"


def test_a_course_that_is_appended_to_a_student_writes_no_row(
    session: Session, rows: Callable[..., list[tuple[Any, ...]]]
) -> None:
    student = session.get_one(Student, 3, options=[selectinload(Student.courses)])
    student.courses.append(session.get_one(Course, 10))

    session.commit()

    assert rows("student_id, course_id", "student_courses") == [(1, 10), (1, 11), (2, 11)]


@pytest.mark.parametrize(("table", "enrolled", "free"), [(Student, 1, 3), (Course, 10, 12)])
def test_postgresql_refuses_to_delete_who_is_enrolled_and_a_session_can_delete_the_others(
    session: Session, table: type[Student | Course], enrolled: int, free: int
) -> None:
    session.delete(session.get_one(table, free))
    session.commit()

    session.delete(session.get_one(table, enrolled))

    with pytest.raises(IntegrityError, match="student_courses"):
        session.commit()
