"""What a write over HTTP answers that repeats another."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from gateway.submission import repeatable_id
from tests.eventually import eventually
from tests.gateway import Backend, assert_problem, ids


def test_a_repeat_under_the_same_key_has_the_same_answer_and_leaves_no_dead_letter(
    http: httpx.Client, backend: Backend
) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": str(uuid4())}
    before = backend.dead_letters()
    first = http.post(courses, json={"course_ids": [101, 102]}, headers=key)
    http.delete(f"{courses}/101")
    again = http.post(courses, json={"course_ids": [102, 101, 101]}, headers=key)
    assert (again.status_code, again.json()["commands"]) == (200, first.json()["commands"])
    assert (again.json()["effects"]["enrolled"], ids(again)) == ([101, 102], [102])
    assert backend.dead_letters() == before


def test_the_same_key_with_other_content_is_refused_and_the_first_stands(http: httpx.Client, backend: Backend) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": str(uuid4())}
    before = backend.dead_letters()
    first = http.post(courses, json={"course_id": 101}, headers=key).json()["commands"][0]
    with backend.client() as redis:
        for remembered in (True, False):  # by Redis, and by the database alone
            if not remembered:
                redis.delete(f"{{enrollment.events}}:gateway:{first['command_id']}")
            problem = assert_problem(http.post(courses, json={"course_id": 102}, headers=key), 409, "command_id_reused")
            assert problem["command_id"] == first["command_id"]
            redis.delete(f"{{enrollment.events}}:gateway:{first['command_id']}")
            assert http.post(courses, json={"course_id": 101}, headers=key).json()["commands"] == [first]
    assert ids(http.get(courses)) == [101]
    assert backend.dead_letters() == before


def test_a_key_is_one_command_per_kind_of_request_and_repeats_while_it_is_under_way(
    http: httpx.Client, backend: Backend
) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": "one"}
    before = backend.dead_letters()
    backend.worker.kill()
    try:
        sent = [
            http.patch(courses, json={"add": [101], "remove": [102]}, headers={**key, "Prefer": "wait=0"})
            for _ in range(3)
        ]
        problem = http.patch(courses, json={"add": [103], "remove": [102]}, headers={**key, "Prefer": "wait=0"})
    finally:
        backend.start_worker()
    assert [answer.json() for answer in sent] == [sent[0].json()] * 3
    assert_problem(problem, 409, "command_id_reused")
    done = http.patch(courses, json={"add": [101], "remove": [102]}, headers=key)
    assert [it["command_id"] for it in done.json()["commands"]] == [
        it["command_id"] for it in sent[0].json()["commands"]
    ]
    other = http.post(courses, json={"course_id": 104}, headers=key)
    assert (other.status_code, ids(other)) == (200, [101, 104])
    assert backend.dead_letters() == before


@pytest.fixture
def short_lived(backend: Backend) -> Iterator[Callable[..., None]]:
    """Give a function that makes the course 900, or deletes it."""

    def decide(*, there: bool) -> None:
        with backend.engine.begin() as connection:
            for table in ("student_courses", "tombstones"):
                connection.execute(text(f"DELETE FROM {table} WHERE course_id = 900"))
            connection.execute(text("DELETE FROM courses WHERE id = 900"))
            if there:
                connection.execute(text("INSERT INTO courses (id) VALUES (900)"))

    decide(there=True)
    yield decide
    decide(there=False)


def test_a_repeated_change_has_its_outcome_although_a_course_is_gone(
    http: httpx.Client, backend: Backend, short_lived: Callable[..., None]
) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": str(uuid4())}
    said = {"add": [101, 900], "remove": [102]}
    first = http.patch(courses, json=said, headers=key)
    short_lived(there=False)
    again = http.patch(courses, json=said, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["commands"] == first.json()["commands"]
    assert_problem(http.patch(courses, json=said), 422, "unknown_courses")


def test_a_change_that_is_under_way_is_not_judged_again(
    http: httpx.Client, backend: Backend, short_lived: Callable[..., None]
) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": str(uuid4())}
    said = {"add": [101, 900], "remove": [102]}
    backend.worker.kill()
    try:
        sent = http.patch(courses, json=said, headers={**key, "Prefer": "wait=0"})
        short_lived(there=False)
        again = http.patch(courses, json=said, headers={**key, "Prefer": "wait=0"})
    finally:
        short_lived(there=True)
        backend.start_worker()
    assert (sent.status_code, again.status_code) == (202, 202)
    assert again.json() == sent.json()
    found = http.get(sent.headers["location"], headers={"Prefer": "wait=10"})
    assert found.json()["outcome"] == "applied"  # before the course is deleted again


def test_a_change_that_was_refused_at_once_leaves_its_key_free(
    http: httpx.Client, backend: Backend, short_lived: Callable[..., None]
) -> None:
    courses, key = f"/students/{backend.new_student()}/courses", {"Idempotency-Key": str(uuid4())}
    short_lived(there=False)
    assert_problem(http.patch(courses, json={"add": [900], "remove": [101]}, headers=key), 422, "unknown_courses")
    assert ids(http.patch(courses, json={"add": [102], "remove": [101]}, headers=key)) == [102]


# --- dead letters answer for what was sent


def make_dead_letter(backend: Backend, command_id: str, age: str = "0") -> None:
    with backend.engine.begin() as connection:
        statement = text("""
            INSERT INTO dead_letters (message_key, code, message, command_id, payload, headers, received_at)
            VALUES (gen_random_uuid(), 'expired', 'It came too late', :id, '{}', '{}',
                    clock_timestamp() - CAST(:age AS interval))
        """)
        connection.execute(statement, {"id": command_id, "age": age})


def test_a_dead_letter_of_before_does_not_answer_for_a_command_that_is_sent_again(
    http: httpx.Client, backend: Backend
) -> None:
    student, key = backend.new_student(), str(uuid4())
    courses = f"/students/{student}/courses"
    command_id = str(repeatable_id("local", "POST /students/{student_id}/courses", key))
    make_dead_letter(backend, command_id, "1 hour")
    make_dead_letter(backend, command_id, "1 second")

    def post(wait: int) -> httpx.Response:
        headers = {"Idempotency-Key": key, "Prefer": f"wait={wait}"}
        return http.post(courses, json={"course_id": 101}, headers=headers)

    backend.worker.kill()
    try:
        again = post(1)
        assert (again.status_code, again.json()["commands"][0]["command_id"]) == (202, command_id)
        assert http.get(again.headers["location"]).json()["outcome"] == "pending"
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(post, 5)  # long enough for what follows; it looks when that is over
            with backend.client() as redis:
                eventually(lambda: redis.llen("enrollment") == 2)
            make_dead_letter(backend, command_id)
            problem = assert_problem(waiting.result(), 409, "expired")
        assert_problem(http.get(again.headers["location"]), 409, "expired")
    finally:
        backend.start_worker()
    assert problem["detail"].startswith("It came too late. It is kept as a dead letter; ")
