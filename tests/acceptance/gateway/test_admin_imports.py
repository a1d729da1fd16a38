"""Imports on the admin page: a file sent, planned, applied, followed, reported and undone."""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page
from sqlalchemy import text

from tests.admin import field
from tests.eventually import eventually
from tests.gateway import Backend

Courses = Callable[[int], list[int]]
HEADER = "user_id,course_id,role,status"


@pytest.fixture(autouse=True)
def named(backend: Backend) -> Iterator[None]:
    """Have students and courses that the student information system knows."""
    with backend.engine.begin() as connection:
        connection.execute(text("UPDATE students SET sis_id = 'sis' || id WHERE id <= 5"))
        connection.execute(text("UPDATE courses SET sis_id = 'sis' || id WHERE id <= 105"))
    yield
    with backend.engine.begin() as connection:
        connection.execute(text("DELETE FROM imports"))


def send(
    client: httpx.Client, content: bytes, name: str = "enrollments.csv", source: str = "", **more: str
) -> httpx.Response:
    form = {"csrf": field(client.get("/admin/imports").text, "csrf"), "name": source, **more}
    return client.post("/admin/imports", data=form, files={"file": (name, content)})


def push(client: httpx.Client, address: str, what: str, **more: str) -> httpx.Response:
    form = {"csrf": field(client.get(address).text, "csrf"), **more}
    return client.post(f"{address}/{what}", data=form)


def followed(client: httpx.Client, address: str) -> str:
    """Wait until an import is done; return the page."""
    eventually(lambda: "<strong>Done.</strong>" in client.get(address, headers={"HX-Request": "true"}).text, 60)
    return client.get(address).text


def test_a_file_is_planned_applied_reported_and_undone(admin: httpx.Client, courses_of: Courses) -> None:
    before = courses_of(5)
    rows = f"{HEADER}\nsis5,sis105,student,active\nsis999,sis105,student,active\nsis5,sis105,teacher,active\n"
    planned = send(admin, rows.encode(), name="../my <b>file.csv")
    assert planned.status_code == 303
    address = planned.headers["location"]
    page = admin.get(address).text
    assert "Apply this plan" in page
    assert "There is no student with the SIS id sis999." in page
    assert courses_of(5) == before
    assert push(admin, address, "apply").status_code == 303
    assert "1 enrolled" in followed(admin, address)
    assert courses_of(5) == [*before, 105]
    report = list(csv.DictReader(io.StringIO(admin.get(f"{address}/report.csv").text)))
    assert [row["outcome"] for row in report] == ["enrolled", "rejected", "ignored"]
    assert [row["code"] for row in admin.get(f"{address}/report.json").json()] == [
        None,
        "unknown_student",
        "not_student",
    ]
    undo = push(admin, address, "undo").headers["location"]
    push(admin, undo, "apply")
    followed(admin, undo)
    assert courses_of(5) == before
    assert "Undone by" in admin.get(address).text
    told = admin.get("/admin/students/5/courses/105").text
    assert "(my _b_file.csv, line 2), as import/canvas, asked to enroll them" in told
    audit = admin.get("/admin/audit").text
    assert all(f'import applied <a href="{page}"' in audit for page in (address, undo))


def test_a_file_larger_than_any_other_request_may_be_is_taken(admin: httpx.Client, backend: Backend) -> None:
    lines = "".join(f"sis{n % 5 + 1},sis{n % 5 + 101},observer,active\n" for n in range(60_000))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("enrollments.csv", f"{HEADER}\n{lines}")
        archive.writestr("terms.csv", "term_id,name\n")
    assert len(packed.getvalue()) > backend.settings().gateway_max_body
    planned = send(admin, packed.getvalue(), name="export.zip")
    assert planned.status_code == 303
    page = admin.get(planned.headers["location"]).text
    assert "60,000" in page
    assert "as the manifest says: terms.csv</p>" in page


def test_rows_wait_for_users_that_come_in_another_file(admin: httpx.Client) -> None:
    rows = f"{HEADER}\nsis999,sis105,student,active\nsis5,sis104,student,deleted\n".encode()
    assert send(admin, rows, wait_hours="soon").status_code == 422
    address = send(admin, rows, wait_hours="24").headers["location"]
    assert "To wait for the catalog" in admin.get(address).text
    assert "<span>1 to wait</span>" in admin.get(address).text
    push(admin, address, "apply")
    page = followed(admin, address)
    assert "1 wait until" in page
    assert "; 1 wait for the catalog" in admin.get("/admin/imports").text
    assert "Look again" in page
    push(admin, address, "apply")
    assert "1 wait until" in followed(admin, address)
    push(admin, address, "undo")  # planned, and no more than that
    assert "Look again" in admin.get(address).text


def test_what_the_broker_lost_is_sent_again(admin: httpx.Client, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    address = send(admin, f"student,course\n{student},103\n".encode()).headers["location"]
    assert "Send again" not in admin.get(address).text
    with backend.engine.begin() as connection:  # as if it was sent, and what was sent is gone
        connection.execute(text("UPDATE imports SET state = 'sent', sent = 1"))
    assert "Send again what the broker lost" in admin.get(address).text
    push(admin, address, "apply", again="yes")
    assert "1 enrolled" in followed(admin, address)
    assert courses_of(student) == [103]


def test_the_page_of_a_student_names_the_rows_that_wait(admin: httpx.Client) -> None:
    address = send(admin, f"{HEADER}\nsis4,none-such,student,active\n".encode(), wait_hours="24").headers["location"]
    push(admin, address, "apply")
    followed(admin, address)
    told = admin.get("/admin/students/4").text
    assert "<strong>enroll</strong> none-such" in told
    assert f'<a href="{address}">Import {address.rpartition("/")[2]}</a> (enrollments.csv, line 2) waits for' in told


def test_roles_of_the_schools_own_are_named_on_the_page_and_a_long_name_of_a_file_is_cut(admin: httpx.Client) -> None:
    rows = f"{HEADER}\nsis5,sis105,Grader,active\n".encode()
    assert "unknown_role" in admin.get(send(admin, rows).headers["location"]).text
    long = chr(0x2603) * 300 + ".csv"
    page = admin.get(send(admin, rows, name=long, other_roles=" Auditor, grader").headers["location"])
    assert "unknown_role" not in page.text
    assert "None of ours" in page.text


def test_what_cannot_be_imported_is_told_on_the_page(admin: httpx.Client) -> None:
    wrong = send(admin, b"a,b\n1,2\n")
    assert wrong.status_code == 422
    assert "line 1: this header is not known; it has a, b." in wrong.text
    assert send(admin, b"student,course\n1,101\n", source="no spaces").status_code == 422


def test_without_a_login_or_the_token_nothing_is_taken(visitor: httpx.Client, admin: httpx.Client) -> None:
    with httpx.Client(base_url=admin.base_url, timeout=20) as stranger:
        refused = stranger.post("/admin/imports", files={"file": ("x.csv", b"student,course\n")})
        assert (refused.status_code, refused.headers["location"]) == (303, "/admin/login")
    answer = admin.post("/admin/imports", data={"csrf": "x"}, files={"file": ("x.csv", b"student,course\n")})
    assert answer.status_code == 403


@pytest.mark.parametrize("width", [360, 1200])
def test_an_import_is_followed_in_a_browser(page: Page, tmp_path: Path, width: int) -> None:
    path = tmp_path / "enrollments.csv"
    path.write_text(f"{HEADER}\nsis4,sis104,student,deleted\nsis4,sis103,student,frozen\n")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/admin/imports")
    page.set_input_files("#file", path)
    page.get_by_role("button", name="Plan the import").click()
    page.get_by_role("button", name="Apply this plan").click()
    page.get_by_text("Done.").wait_for(timeout=60_000)
    assert re.search(r"/admin/imports/\d+$", page.url)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
