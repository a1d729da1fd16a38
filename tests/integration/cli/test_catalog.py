"""`enrollment catalog load`: CSV files, good and bad."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from enrollment.names import ENROLL, REPLACE, UNENROLL
from tests.gateway import Backend
from tests.integration.cli.conftest import Run, write
from tests.integration.conftest import message
from worker.service import Service


def test_catalog_load_adds_and_changes_and_a_second_time_does_nothing(run: Run, tmp_path: Path) -> None:
    students = write(tmp_path / "s.csv", "id,sis_id,name", "1,a,Ana", "2,b,李雷", ',c,"Vera, the third"', "")
    courses = write(tmp_path / "c.csv", "sis_id,code", "k,MAT")
    load = ("catalog", "load", "--students", students, "--courses", courses)
    assert run(*load).output == "3 new students, 0 changed, 0 as before.\n1 new course, 0 changed, 0 as before.\n"
    assert run(*load, "--json").json["students"] == {"inserted": 0, "updated": 0, "unchanged": 3}
    assert [row[2] for row in run("students").rows] == ["Ana", "李雷", "Vera, the third"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "Line 1: it must name the columns, and id or sis_id among them"),
        (["1,a,Ana"], "Line 1: it must name columns, each once, of id, sis_id, name, and has '1'"),
        (["id,name,id"], "Line 1: it must name columns, each once"),
        (["name"], "Line 1: it must name the columns, and id or sis_id among them"),
        (["id,name", "1"], "Line 2: it has 1 values, and the first line has 2"),
        (["id,name", "1,Ana", "x,Eve"], "Line 3: the id 'x' is not an integer"),
        (["id,name", "1,Ana", "0,Eve"], "Line 3: the id is not an integer from 1"),
        (["id,name", "1,Ana", "", "2,Eve"], "Line 3: it is empty"),
        (["id,name", '1,"Ana', '"', "2,Eve"], "Line 2: a value has a line break in it"),
        (["id,name", '1,"Ana"x'], "Line 2: it is not CSV"),
        (["id,name", "1,Ana", "1,Eve"], "Line 3 is about the same one as line 2"),
        (["id,name", ",Ana"], "Line 2: it has neither an id nor a sis_id"),
    ],
)
def test_catalog_load_names_the_line_and_loads_nothing(
    run: Run, tmp_path: Path, lines: Sequence[str], complaint: str
) -> None:
    path = write(tmp_path / "s.csv", *lines)
    done = run("catalog", "load", "--students", path)
    assert done.code == 1
    assert done.error.startswith(f"Error: {path}: {complaint}")
    assert len(done.error.splitlines()) == 1
    assert run("students").output == ""


def test_catalog_load_refuses_what_is_not_utf8(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b"id,name\n1,Ana\n2,Jos\xe9\n")
    assert "Line 3: the name is not a text" in run("catalog", "load", "--students", path).error


def test_a_closed_course_keeps_who_is_enrolled_and_takes_no_one_else(run: Run, service: Service) -> None:
    def outcomes(*messages: object) -> list[str]:
        return [it.split()[0] for it in service.handle(list(messages))]  # type: ignore[arg-type]

    assert outcomes(message(ENROLL, 1, [10, 11])) == ["applied"]
    assert run("catalog", "close", "10", "C99").error == "There is no course C99.\n"
    assert outcomes(message(ENROLL, 1, [10, 12]), message(REPLACE, 1, [10])) == ["applied", "applied"]
    assert outcomes(message(ENROLL, 2, [10]), message(REPLACE, 2, [10, 11])) == ["rejected", "rejected"]
    assert outcomes(message(UNENROLL, 1, [10]), message(ENROLL, 1, [10])) == ["applied", "rejected"]
    assert run("catalog", "open", "10").output == "1 course opened.\n"
    assert outcomes(message(ENROLL, 1, [10])) == ["applied"]


def test_who_has_enrollments_is_not_removed(run: Run, service: Service) -> None:
    service.handle([message(ENROLL, 1, [10])])
    refused = run("catalog", "remove", "--students", "1", "2")
    assert (refused.code, "1 have enrollments, 1 together (1): nothing was removed" in refused.error) == (1, True)
    assert len(run("students").rows) == 5
    service.handle([message(UNENROLL, 1, [10])])
    assert run("catalog", "remove", "--students", "1", "2").output == "2 students removed.\n"


def test_a_removed_id_that_comes_back_does_not_bring_back_what_older_commands_said(
    run: Run, service: Service, tmp_path: Path
) -> None:
    late = message(ENROLL, 1, [10], issued_at="2026-01-01T00:00:00Z")
    service.handle([message(UNENROLL, 1, [10])])
    run("catalog", "remove", "--students", "1")
    run("catalog", "load", "--students", write(tmp_path / "s.csv", "id,name", "1,Ana"))
    service.handle([late])
    assert run("courses-of", "1").rows == []


def test_a_full_load_removes_who_is_not_in_the_file(
    run: Run, catalog: None, tmp_path: Path, rows: Callable[..., list[tuple[Any, ...]]]
) -> None:
    assert run("catalog", "load", "--full", "--courses", write(tmp_path / "none.csv", "id")).code == 1
    run("catalog", "load", "--full", "--courses", write(tmp_path / "c.csv", "id,sis_id", "10,a", ",new"))
    assert rows("id, sis_id", "courses") == [(1, "new"), (10, "a")]


def test_what_is_exported_can_be_loaded(run: Run, catalog: None, tmp_path: Path) -> None:
    csv = tmp_path / "students.csv"
    csv.write_text(run("catalog", "export", "--students").output)
    assert run("catalog", "load", "--full", "--students", csv).output == "0 new students, 0 changed, 5 as before.\n"


def test_remove_unenrolls_first_by_commands_where_that_is_asked_for(run: Run, backend: Backend) -> None:
    student = backend.new_student()
    with backend.engine.begin() as connection:
        connection.execute(text("INSERT INTO student_courses VALUES (:id, 101), (:id, 102)"), {"id": student})
    done = run("catalog", "remove", "--students", "--unenroll", student, **backend.variables())
    assert done.output == "1 student removed.\n"
    with backend.engine.connect() as connection:
        statement = text("SELECT unenrolled FROM commands WHERE student_id = :id AND source = 'catalog:remove'")
        assert connection.execute(statement, {"id": student}).scalars().all() == [[101, 102]]


def test_the_audit_has_who_closed_opened_and_removed_what(run: Run, catalog: None, tmp_path: Path) -> None:
    run("catalog", "close", "10", "11")
    run("catalog", "close", "10")  # is closed already
    run("catalog", "open", "10")
    run("catalog", "remove", "--students", "3")
    run("catalog", "load", "--full", "--courses", write(tmp_path / "c.csv", "id", "10"))
    of_course = [(it["action"], it["subject"]) for it in run("audit", "--course", 10, "--json").json]
    assert of_course == [("course.opened", "courses/10"), ("course.closed", "courses/10")]
    assert [it["action"] for it in run("audit", "--course", 11, "--json").json] == ["catalog.removed", "course.closed"]
    [removed] = run("audit", "--student", 3, "--json").json
    assert (removed["action"], removed["who"].startswith("cli/")) == ("catalog.removed", True)


def test_what_another_system_refers_to_is_not_removed(
    run: Run, service: Service, engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE grades (course_id bigint REFERENCES courses (id))"))
        connection.execute(text("INSERT INTO grades VALUES (10)"))
    done = run("catalog", "remove", "--courses", 10)
    assert (done.code, len(done.error.splitlines())) == (1, 1)
    assert "refers to some of these courses" in done.error
    full = write(tmp_path / "c.csv", "id", "11")
    assert "nothing was removed" in run("catalog", "load", "--courses", full, "--full").error
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM courses WHERE id = 10")) == 1
