"""What needs no browser: who is let in, what is refused, and what every page carries."""

import re
from collections.abc import Callable
from html import escape

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from enrollment.client import Client
from tests.admin import HOSTILE, NAME, PASSWORD, Extremes, commands, field, log_in, submit
from tests.eventually import eventually
from tests.gateway import STUDENTS, Backend, served

Courses = Callable[[int], list[int]]
PAGES = (
    "/admin",
    "/admin?window=week",
    "/admin/runbook",
    "/admin/students",
    "/admin/students?q=S1&after=3",
    "/admin/students/1",
    "/admin/students/1/choices?q=C1&add=101",
    "/admin/students/1/courses/101",
    "/admin/students/1/commands",
    "/admin/courses",
    "/admin/courses?q=C1",
    "/admin/courses/101",
    "/admin/commands/00000000-0000-7000-8000-000000000000",
    "/admin/events",
    "/admin/waiting",
    "/admin/imports",
    "/admin/dead-letters",
    "/admin/dead-letters/of/expired",
)
NOWHERE = (
    "/admin/nowhere",
    "/admin/students/4711",
    "/admin/students/x",
    "/admin/students/99999999999999999999",
    "/admin/students/-1",
    "/admin/students/1/courses/999",
    "/admin/courses/999",
    "/admin/commands/x",
    "/admin/dead-letters/4711",
    "/admin/imports/4711",
    "/admin/imports/99999999999999999999",
    "/admin/imports/4711/report.csv",
    "/admin/dead-letters/of/anything",
    "/admin/dead-letters/of/%00",
    "/admin/dead-letters/of/expired%00",
    "/admin/static/0/admin.css",
)


@pytest.mark.parametrize("address", [*PAGES, "/admin/nowhere"])
def test_who_is_not_logged_in_sees_the_login_alone(visitor: httpx.Client, address: str) -> None:
    answer = visitor.get(address)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/admin/login")
    assert not answer.content


@pytest.mark.parametrize("address", PAGES)
def test_every_page_is_whole_and_asks_no_other_server(admin: httpx.Client, address: str) -> None:
    answer = admin.get(address, follow_redirects=True)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", answer.text) == []
    addresses = re.findall(r'(?:src|href|action|hx-get|hx-post|sse-connect)="([^"]*)"', answer.text)
    assert [it for it in addresses if not it.startswith(("/admin", "#"))] == []
    for it in addresses:
        if it.startswith("/admin/static/"):
            assert "immutable" in admin.get(it).headers["cache-control"]


@pytest.mark.parametrize("address", NOWHERE)
def test_an_address_that_shows_nothing_says_so_as_a_page(admin: httpx.Client, address: str) -> None:
    answer = admin.get(address)
    assert answer.status_code == 404
    assert "<h1>" in answer.text


def test_a_wrong_password_is_refused_and_the_right_one_lets_in_and_out(visitor: httpx.Client) -> None:
    answer = log_in(visitor, "wrong")
    assert answer.status_code == 403
    assert "The name or the password is wrong." in answer.text
    assert visitor.get("/admin/students").status_code == 303

    answer = log_in(visitor, next="/admin/courses")
    assert answer.headers["location"] == "/admin/courses"
    cookie = next(it for it in answer.headers.get_list("set-cookie") if it.startswith("enrollment_session="))
    assert all(it in cookie for it in ("HttpOnly", "SameSite=lax", "Path=/"))
    page = visitor.get("/admin/courses").text
    assert NAME in page

    assert visitor.post("/admin/logout", data={"csrf": field(page, "csrf")}).status_code == 303
    assert visitor.get("/admin/courses").status_code == 303


def test_a_login_leads_to_no_other_site(visitor: httpx.Client) -> None:
    for at in ("https://elsewhere.example", "//elsewhere.example", "/admin//elsewhere", "/admin\\x", "/students"):
        assert log_in(visitor, next=at).headers["location"] == "/admin"


def test_cookies_are_for_https_alone_where_it_is_https(visitor: httpx.Client) -> None:
    visitor.headers["x-forwarded-proto"] = "https"  # believed from this machine alone
    cookie = visitor.get("/admin/login").headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert "Secure" in cookie


def test_a_forged_or_foreign_cookie_is_no_login(visitor: httpx.Client, cookie: str) -> None:
    for value in ("x", ".", f"{cookie[:-1]}x", f"A{cookie}", cookie.partition(".")[0]):
        visitor.cookies.set("enrollment_session", value)
        assert visitor.get("/admin/students").status_code == 303
        visitor.cookies.clear()


@pytest.mark.parametrize(
    "address",
    [
        "/admin/students/1/courses",
        "/admin/dead-letters/decide",
        "/admin/dead-letters/1/replay",
        "/admin/logout",
        "/admin/login",
    ],
)
def test_a_form_that_is_not_from_one_of_our_pages_is_refused(
    admin: httpx.Client, backend: Backend, address: str
) -> None:
    before = commands(backend)
    csrf = field(admin.get("/admin/students").text, "csrf")
    said = {"had": "", "add": "101", "name": NAME, "password": PASSWORD, "decision": "replay-all"}
    for refused in (
        admin.post(address, data=said),
        admin.post(address, data={**said, "csrf": f"{csrf}x", "login_csrf": "x"}),
        admin.post(address, data={**said, "csrf": csrf}, headers={"sec-fetch-site": "cross-site"}),
    ):
        assert refused.status_code == 403
    assert commands(backend) == before
    assert admin.get("/admin/students").status_code == 200


def test_a_session_that_ended_sends_htmx_to_the_login(visitor: httpx.Client) -> None:
    headers = {"hx-request": "true", "hx-current-url": "http://localhost/admin/students/1?q=x"}
    answer = visitor.get("/admin/students/1/choices", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/admin/login?next=/admin/students/1"


def test_without_administrators_this_machine_alone_is_answered(
    gateway_url: str, backend: Backend, courses_of: Courses
) -> None:
    student = backend.new_student()
    with httpx.Client(base_url=gateway_url, timeout=20) as client:
        assert "No administrator is configured" in client.get("/admin/students").text
        assert client.get("/admin/login").headers["location"] == "/admin"
        submit(client, f"/admin/students/{student}", f"/admin/students/{student}/courses", add="101")
        eventually(lambda: courses_of(student) == [101])
        assert client.get("/admin/students", headers={"host": "rebound.example"}).status_code == 403


def test_names_are_text_whatever_they_say(admin: httpx.Client, extremes: Extremes) -> None:
    for address in (
        f"/admin/students/{extremes.hostile}",
        f"/admin/students/{extremes.many}",
        f"/admin/students/{extremes.many}/courses/7000",
        "/admin/courses/7000",
        "/admin/courses?q=GEN-7000",
        f"/admin/students?q={extremes.hostile}",
        "/admin/students?q=" + HOSTILE.replace("&", "%26").replace("#", "%23"),
    ):
        page = admin.get(address).text
        assert HOSTILE not in page
        assert "<img src=x" not in page
        assert escape(HOSTILE, quote=False).partition("(")[0] in page.replace("&#39;", "'").replace("&#34;", '"')


def test_a_save_is_one_command_that_leaves_alone_what_others_changed(
    admin: httpx.Client, backend: Backend, courses_of: Courses
) -> None:
    student = backend.new_student()
    page, save = f"/admin/students/{student}", f"/admin/students/{student}/courses"
    assert submit(admin, page, save, add=["101", "102"]).status_code == 303
    eventually(lambda: courses_of(student) == [101, 102])
    with Client(backend.redis.url) as client:
        client.enroll(student, [103], source="portal")  # after the page was opened, which showed 101 and 102
    eventually(lambda: courses_of(student) == [101, 102, 103])
    answer = submit(admin, page, save, had="101 102", keep="101", ids="104, 105")
    assert answer.status_code == 303
    eventually(lambda: courses_of(student) == [101, 103, 104, 105])
    assert "Saved." in admin.get(answer.headers["location"]).text
    with backend.engine.connect() as connection:
        statement = text(
            "SELECT command FROM commands WHERE student_id = :id AND source = 'admin/ana' ORDER BY issued_at"
        )
        assert list(connection.scalars(statement, {"id": student})) == ["enroll", "replace"]


def test_a_save_that_changes_nothing_sends_nothing(admin: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    before = commands(backend)
    answer = submit(admin, f"/admin/students/{student}", f"/admin/students/{student}/courses")
    assert "Nothing to save." in answer.text
    assert commands(backend) == before


def test_what_cannot_be_a_command_is_told_and_not_sent(admin: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    page, save = f"/admin/students/{student}", f"/admin/students/{student}/courses"
    before = commands(backend)
    for ids, told in (
        ("abc", "“abc” is no course id"),
        ("0", "“0” is no course id"),
        ("1e3", "is no course id"),
        ("9" * 30, "is no course id"),
        (" ".join(map(str, range(1, 1002))), "1 to 1000 course ids"),
    ):
        answer = submit(admin, page, save, ids=ids)
        assert answer.status_code == 422
        assert told in answer.text
    assert commands(backend) == before


def test_a_long_rejection_is_cut_everywhere_but_on_the_page_of_its_command(
    admin: httpx.Client, backend: Backend
) -> None:
    student, ids = backend.new_student(), " ".join(map(str, [101, *range(5000, 5900)]))
    page = f"/admin/students/{student}"
    sent = submit(admin, page, f"{page}/courses", ids=ids).headers["location"]
    command = f"/admin/commands/{sent.rpartition('=')[2]}"
    whole: str = eventually(lambda: it if "rejected" in (it := admin.get(command).text) else "")
    assert "All 900 ids" in whole
    assert "5898, 5899</details>" in whole
    eventually(lambda: command in admin.get("/admin/events").text)
    for address in (sent, f"{page}/commands", f"{page}/courses/101", "/admin/events"):
        shown = admin.get(address).text
        assert "5028, 5029 and 870 more. Nothing was changed." in shown
        assert ", 5030" not in shown
    form = {"csrf": field(admin.get(page).text, "csrf"), "ids": ids}
    piece = admin.post(f"{page}/courses", data=form, headers={"HX-Request": "true"}).text
    assert "5029 and 870 more" in re.sub(r".*ids-wrong\">", "", piece, flags=re.DOTALL)
    assert ", 5030" not in piece


def test_the_history_of_a_student_that_was_deleted_says_so(admin: httpx.Client, backend: Backend) -> None:
    student = STUDENTS + 1  # none of those that other tests count
    with backend.engine.begin() as connection:
        connection.execute(text("INSERT INTO students (id, name) VALUES (:student, '')"), {"student": student})
    with Client(backend.redis.url) as client:
        sent = client.enroll(student, [101])
        client.wait_for(sent, 30)
    for table, column in (("student_courses", "student_id"), ("students", "id")):
        with backend.engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {table} WHERE {column} = :student"), {"student": student})
    shown = admin.get(f"/admin/students/{student}/courses/101")
    assert shown.status_code == 200
    for words in ("there is no such student any more", "because the row was deleted from the table", "by enroll"):
        assert words in shown.text


def test_events_come_as_pieces_of_the_page(admin: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    with admin.stream("GET", "/admin/events/stream") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        with Client(backend.redis.url) as client:
            client.enroll(student, [101])
        assert next(line for line in lines if f"student {student}" in line).startswith("data: ")


def test_a_database_that_is_away_is_told_as_a_page(backend: Backend) -> None:
    settings = backend.settings(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"))
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as client:
        answer = client.get("/admin/students")
        assert answer.status_code == 503
        assert "The database did not answer." in answer.text
