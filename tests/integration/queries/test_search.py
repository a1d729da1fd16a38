from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from enrollment.commands import Enroll
from enrollment.fold import Record, fold
from enrollment.state import State
from models import ledger
from models.queries import search
from models.queries.search import NAME_WORDS, Place

NAMES = {
    1: ("S-1", "Zoë O'Brien-Li"),
    2: (None, "李雷 王"),
    3: ("77", "Ana Lima"),
    4: (None, "ANA 100% [x]"),
    5: (None, ""),
    77: (None, "Bo"),
}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        for id_, (sis_id, name) in NAMES.items():
            statement = text("INSERT INTO students (id, sis_id, name) VALUES (:id, :sis_id, :name)")
            connection.execute(statement, {"id": id_, "sis_id": sis_id, "name": name})
        connection.execute(
            text("""
                INSERT INTO courses (id, sis_id, code, title)
                VALUES (101, 'c-1', 'MAT-101', '100% Algebra_x'), (102, NULL, 'BIO', 'Ökologie')
            """)
        )
        yield connection


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("ana", [3, 4]),
        ("an", [3, 4]),
        ("ana li", [3]),
        ("LIMA ana", [3]),
        ("na", []),
        ("o'brien", [1]),
        ("brien li", [1]),
        ("ZOË", [1]),
        ("李", [2]),
        ("100%", [4]),
        ("S-1", [1]),
        ("77", [3, 77]),
        ("  2 ", [2]),
        ("'; DROP TABLE students --", []),
        ("a:* | b & !c <-> (", []),
        ("%", []),
        ("\x00", []),
        ("\ud800", []),
        ("🎓", []),
        (str(2**63), []),
        ("9" * 5000, []),
    ],
)
def test_a_student_is_found_by_id_sis_id_or_the_beginning_of_a_name(
    connection: Connection, said: str, found: list[int]
) -> None:
    assert [student.id for student in search.find_students(connection, said).items] == found


def test_students_come_page_by_page(connection: Connection) -> None:
    page = search.find_students(connection, "ana", limit=1)
    assert ([student.id for student in page.items], page.after) == ([3], 3)
    page = search.find_students(connection, "ana", limit=1, after=page.after)
    assert ([student.id for student in page.items], page.after) == ([4], None)


def test_names_are_looked_up_in_an_index(connection: Connection) -> None:
    connection.execute(text("INSERT INTO students SELECT g, NULL, 'Name' || g FROM generate_series(1000, 20000) g"))
    connection.execute(text("ANALYZE students"))
    statement = text(f"EXPLAIN SELECT id FROM students WHERE {NAME_WORDS} @@ to_tsquery('simple', '''name77'':*')")
    plan = "\n".join(connection.execute(statement).scalars())
    assert "students_name_words_idx" in plan


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("alg", [101]),
        ("mat-1", [101]),
        ("c-1", [101]),
        ("102", [102]),
        ("öko", [102]),
        ("%", [101]),
        ("_x", [101]),
        ("\\", []),
        ("\x00", []),
        ("zzz", []),
    ],
)
def test_a_course_is_found_by_id_sis_id_or_any_part_of_code_and_title(
    connection: Connection, said: str, found: list[int]
) -> None:
    assert [course.id for course in search.find_courses(connection, said).items] == found


def test_unknown_courses_are_left_out(connection: Connection) -> None:
    assert search.courses_by_id(connection, [101, 999, 2**70, -1]).keys() == {101}


def test_the_commands_of_a_student_come_newest_first_page_by_page(connection: Connection) -> None:
    start = datetime(2026, 1, 31, tzinfo=UTC)
    records = [record for minute in (3, 1, 5, 2, 4) for record in _records(start + timedelta(minutes=minute), minute)]
    ledger.write_commands(connection, records, uuid4())
    first, place = search.commands_of(connection, 1, limit=2)
    assert place == Place(start + timedelta(minutes=4), UUID(int=4))
    second, place = search.commands_of(connection, 1, limit=3, before=place)
    assert place is None
    assert [record.command_id.int for record in first + second] == [5, 4, 3, 2, 1]
    assert search.commands_of(connection, 2) == ([], None)


def _records(issued_at: datetime, number: int) -> list[Record]:
    command = Enroll(command_id=UUID(int=number), student_id=1, course_ids=(101,), issued_at=issued_at)
    verdicts = fold(State(), [command], issued_at).verdicts
    return [verdict for verdict in verdicts if isinstance(verdict, Record)]
