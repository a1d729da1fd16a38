"""Dead letters on the admin page, request by request."""

import re
from collections.abc import Callable
from html import unescape

import httpx
from sqlalchemy import text

from models import audit
from tests.admin import NAME, commands, submit
from tests.eventually import eventually
from tests.gateway import Backend

Courses = Callable[[int], list[int]]


def test_dead_letters_are_replayed_and_discarded_by_reason(
    admin: httpx.Client, backend: Backend, dead_letter: Callable[..., int], courses_of: Courses
) -> None:
    student = backend.new_student()
    wrong, right = dead_letter("enrollment.enrol.v1", command="enroll"), dead_letter(student_id=student)
    group = "/admin/dead-letters/of/invalid_command"
    answer = submit(
        admin, group, "/admin/dead-letters/decide", id=[str(right)], decision="replay", code="invalid_command"
    )
    assert "1 cannot be replayed as it is." in answer.text
    payload = f'{{"student_id": {student}, "course_ids": [101]}}'
    said = {"as": "corrected", "payload": payload}
    answer = submit(admin, f"/admin/dead-letters/{right}", f"/admin/dead-letters/{right}/replay", **said)
    assert answer.status_code == 303
    eventually(lambda: courses_of(student) == [101])
    said = {"id": str(wrong), "decision": "discard", "code": "unknown_task"}
    answer = submit(admin, f"/admin/dead-letters/{wrong}", "/admin/dead-letters/decide", **said)
    assert "Discard 1 dead letter?" in answer.text
    answer = submit(admin, f"/admin/dead-letters/{wrong}", "/admin/dead-letters/decide", sure="yes", **said)
    assert "1 discarded." in answer.text
    assert "Discarded" in admin.get(f"/admin/dead-letters/{wrong}").text
    with backend.engine.connect() as connection:
        [discarded, edited] = audit.newest(connection, limit=2)
    assert (discarded.action, discarded.subject) == ("dead_letter.discarded", f"dead-letters/{wrong}")
    assert (edited.action, edited.subject) == ("dead_letter.edited", f"dead-letters/{right}")
    assert {discarded.who, edited.who} == {f"admin/{NAME}"}
    page = admin.get("/admin/audit").text
    assert f'/admin/dead-letters/{wrong}"' in page
    assert str(edited.command_ids[0]) in page


def test_who_changes_a_student_by_hand_is_known(admin: httpx.Client, backend: Backend, courses_of: Courses) -> None:
    student = backend.new_student()
    page = f"/admin/students/{student}"
    submit(admin, page, f"{page}/courses", ids="101")
    eventually(lambda: courses_of(student) == [101])
    with backend.engine.connect() as connection:
        [entry] = audit.newest(connection, subject=audit.student(student))
        source = connection.scalar(
            text("SELECT source FROM commands WHERE command_id = :id"), {"id": entry.command_ids[0]}
        )
    assert (entry.who, entry.action) == (source, "student.changed") == (f"admin/{NAME}", "student.changed")


def test_a_payload_too_long_for_a_page_is_replayed_as_it_is_or_not_at_all(
    admin: httpx.Client, backend: Backend, dead_letter: Callable[..., int]
) -> None:
    letter = dead_letter(student_id=1, course_ids=[101], remark="x" * 200_000)
    page, replay = f"/admin/dead-letters/{letter}", f"/admin/dead-letters/{letter}/replay"
    shown = admin.get(page).text
    assert "<textarea" not in shown
    assert f"enrollment dead-letters replay {letter} --payload payload.json" in shown
    assert len(shown) < 20_000
    before = commands(backend)
    answer = submit(admin, page, replay, **{"as": "corrected", "payload": '{"student_id": 1, "course_ids": [101]}'})
    assert answer.status_code == 422
    assert "too long to be corrected here. Nothing was sent." in answer.text
    answer = submit(admin, page, replay, **{"as": "is"})
    assert (answer.status_code, "remark" in answer.text) == (422, True)
    assert commands(backend) == before
    said = {"id": str(letter), "decision": "discard", "code": "invalid_command", "sure": "yes"}
    assert "1 discarded." in submit(admin, page, "/admin/dead-letters/decide", **said).text
    assert "The beginning of the payload" in admin.get(page).text


def test_dead_letters_of_one_reason_come_page_by_page(admin: httpx.Client, backend: Backend) -> None:
    with backend.engine.begin() as connection:
        statement = text("""
            INSERT INTO dead_letters (message_key, code, message, payload, headers)
            SELECT gen_random_uuid(), 'a&b?', 'Letter ' || g || '.', '{}', '{}' FROM generate_series(1, 120) g
        """)
        connection.execute(statement)
    seen: list[int] = []
    address: str | None = "/admin/dead-letters/of/a%26b%3F"
    pages = 0
    while address:
        page = admin.get(address).text
        assert "of 120</h2>" in page
        seen += map(int, re.findall(r"Letter (\d+)\.", page))
        found = re.search(r'href="([^"]*)" rel="next"', page)
        address, pages = unescape(found[1]) if found else None, pages + 1
    assert (seen, pages) == (list(range(120, 0, -1)), 3)
    assert "None is left that is older." in admin.get("/admin/dead-letters/of/a%26b%3F?before=1").text
    with backend.engine.begin() as connection:
        connection.execute(text("DELETE FROM dead_letters WHERE code = 'a&b?'"))


def test_a_reason_that_cannot_be_stored_is_none(admin: httpx.Client) -> None:
    for decision in ("replay", "replay-all", "discard"):
        answer = submit(
            admin,
            "/admin/students",
            "/admin/dead-letters/decide",
            decision=decision,
            code="\0",
            id="1",
            sure="yes",
        )
        assert answer.status_code == 404
