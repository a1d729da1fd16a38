"""Lookups over HTTP, as a client meets them."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from tests.eventually import eventually
from tests.gateway import Backend, assert_problem


def test_students_and_courses_come_page_by_page_along_their_links(http: httpx.Client, backend: Backend) -> None:
    seen: list[int] = []
    url: str | None = "/students?limit=150"
    while url:
        answer = http.get(url)
        seen += [student["id"] for student in answer.json()["items"]]
        url = answer.links["next"]["url"] if "next" in answer.links else None
    with backend.engine.connect() as connection:  # other tests of this server add and erase some
        there = list(connection.scalars(text("SELECT id FROM students ORDER BY id")))
    assert len(there) > 150
    assert seen == there
    page = http.get("/courses", params={"limit": 5, "after": 118}).json()
    assert ([course["id"] for course in page["items"]], page["after"]) == ([119, 120], None)


def test_a_student_and_a_roster(http: httpx.Client, backend: Backend) -> None:
    one, two = backend.new_student(), backend.new_student()
    for student in (one, two):
        http.put(f"/students/{student}/courses", json={"course_ids": [120]})
    found = http.get(f"/students/{one}").json()
    assert (found["name"], [course["code"] for course in found["courses"]]) == (f"S{one}", ["C120"])
    page = http.get("/courses/120/students", params={"limit": 1, "after": one - 1})
    assert [student["id"] for student in page.json()["items"]] == [one]
    assert http.get(page.links["next"]["url"]).json()["items"][0]["id"] == two
    assert_problem(http.get("/students/999999"), 404, "unknown_student")
    assert_problem(http.get("/students/999999/courses"), 404, "unknown_student")
    assert_problem(http.get("/courses/999/students"), 404, "unknown_courses")
    assert_problem(http.get(f"/commands/{uuid4()}"), 404, "unknown_command")


def test_an_unchanged_answer_is_not_sent_again(http: httpx.Client, backend: Backend) -> None:
    student = f"/students/{backend.new_student()}"
    tag = http.get(student).headers["etag"]
    for header in (tag, f'"other", W/{tag}', "*"):
        answer = http.get(student, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    http.post(f"{student}/courses", json={"course_id": 101})
    assert http.get(student, headers={"If-None-Match": tag}).status_code == 200


def test_a_command_that_became_a_dead_letter_says_so(http: httpx.Client, backend: Backend) -> None:
    lost = uuid4()
    with backend.client() as redis:
        headers = {"id": str(lost), "task": "enrollment.enroll.v1", "expires": "2020-01-01T00:00:00+00:00"}
        _push(redis, lost, headers, [[], {"student_id": 1, "course_ids": [101]}, {}])
    eventually(lambda: http.get(f"/commands/{lost}").status_code != 404)
    assert_problem(http.get(f"/commands/{lost}"), 409, "expired")


def test_waiting_for_a_command_finds_an_outcome_whose_event_never_came(http: httpx.Client, backend: Backend) -> None:
    asked = str(uuid4())
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(http.get, f"/commands/{asked}", headers={"Prefer": "wait=5"})
        eventually(lambda: "enrollment_gateway_waiters 1.0" in http.get("/metrics").text)
        with backend.engine.begin() as connection:
            statement = text("""
                INSERT INTO commands VALUES (CAST(:id AS uuid), 'enroll', 1, '{101}', now(), 'portal', 'applied',
                                             '{101}', '{}', '{}', '{}', '[]', now(), '\\x00')
            """)
            connection.execute(statement, {"id": asked})
        answer = waiting.result()
    assert (answer.status_code, answer.json()["outcome"]) == (200, "applied")


def test_a_page_has_a_size_that_is_told_when_it_is_missed(http: httpx.Client) -> None:
    for path in ("/students", "/courses", "/courses/101/students"):
        for limit in ("0", "1001", "-1", "x", "", "1" * 5000):
            problem = assert_problem(http.get(path, params={"limit": limit}), 422, "invalid_request")
            assert "limit: from 1 to 1000 on a page; the next page is asked for with `after`." in problem["detail"]
        assert http.get(path, params={"limit": 1000}).status_code == 200


def _push(redis: Any, command_id: UUID, headers: dict[str, str], body: Any) -> None:
    properties = {"delivery_tag": str(command_id), "delivery_info": {"exchange": "", "routing_key": "enrollment"}}
    message = {
        "body": json.dumps(body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {**properties, "delivery_mode": 2, "priority": 0},
    }
    redis.lpush("enrollment", json.dumps(message))
