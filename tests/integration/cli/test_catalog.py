"""`enrollment catalog load`: CSV files, good and bad."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Run, write


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
