"""Three students and three courses to ask about."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from models.queries import CourseRow, StudentRow

ANA = StudentRow(1, "s-1", "Ana")
LI_LEI = StudentRow(2, None, "李雷 🎓")
BO = StudentRow(3, "s-3", "")
ALGEBRA = CourseRow(101, "c-101", "MAT", "Algebra")
BIOLOGY = CourseRow(102, None, "", "Biología")
CHEMISTRY = CourseRow(103, "c-103", "CHE", "")


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
