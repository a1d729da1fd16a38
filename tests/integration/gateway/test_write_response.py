"""What a write over HTTP answers, when it waits, repeats itself or comes to nothing."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from enrollment.client import Client
from gateway.submission import repeatable_id
from tests.eventually import eventually
from tests.gateway import Backend, assert_problem, ids, served
from worker.settings import Patience

# --- waiting


def test_respond_async_answers_at_once_and_says_where_the_outcome_will_be(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    answer = http.post(courses, json={"course_id": 101}, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.json()["commands"][0]["outcome"] == "pending"
    found = http.get(answer.headers["location"], headers={"Prefer": "wait=10"})
    assert (found.status_code, found.json()["outcome"]) == (200, "applied")
    assert ids(http.get(courses)) == [101]


def test_a_wait_that_is_over_answers_202_and_the_command_is_pending_until_it_is_done(
    http: httpx.Client, backend: Backend
) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    backend.worker.kill()
    answer = http.post(courses, json={"course_id": 101}, headers={"Prefer": "wait=1"})
    try:
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
        pending = http.get(answer.headers["location"])
        assert (pending.status_code, pending.json()["outcome"], pending.headers["retry-after"]) == (200, "pending", "1")
    finally:
        backend.start_worker()
    assert http.get(answer.headers["location"], headers={"Prefer": "wait=10"}).json()["outcome"] == "applied"


def test_a_change_does_not_wait_behind_imports(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    backend.worker.kill()
    try:
        http.patch(courses, json={"add": [101], "remove": [102]}, headers={"Prefer": "respond-async"})
        with backend.client() as redis:
            [entry] = redis.lrange("enrollment", 0, -1)
            assert json.loads(entry)["headers"]["task"] == "enrollment.apply.v1"
            assert redis.llen("enrollment.bulk") == 0
    finally:
        backend.start_worker()
    eventually(lambda: ids(http.get(courses)) == [101])


def test_a_database_that_hangs_does_not_prolong_the_wait(gateway_url: str, backend: Backend) -> None:
    courses = f"{gateway_url}/students/{backend.new_student()}/courses"
    backend.worker.kill()
    try:
        with backend.engine.begin() as connection:
            connection.execute(text("LOCK TABLE commands IN ACCESS EXCLUSIVE MODE"))
            answer = httpx.post(courses, json={"course_id": 101}, headers={"Prefer": "wait=1"}, timeout=8)
    finally:
        backend.start_worker()
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")


def test_an_outcome_is_found_although_its_event_never_came(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    with backend.client() as redis:
        redis.rename("enrollment.events", "kept") if redis.exists("enrollment.events") else None
        redis.set("enrollment.events", "not a stream")  # the worker's events stay in its outbox
        try:
            answer = http.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"Prefer": "wait=1"})
        finally:
            redis.delete("enrollment.events")
    assert (answer.status_code, ids(answer)) == (200, [101])
    eventually(lambda: http.get("/readyz").status_code == 200)


def test_a_write_that_waits_says_so_and_where_its_outcome_will_be(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    answer = http.post(courses, json={"course_id": 999, "wait_until": "2999-01-01T00:00:00Z"})
    [command] = answer.json()["commands"]
    assert (answer.status_code, answer.headers["location"]) == (202, f"/commands/{command['command_id']}")
    assert (command["outcome"], command["until"]) == ("waiting", "2999-01-01T00:00:00Z")
    assert command["waiting_for"] == [{"code": "unknown_courses", "ids": [999]}]
    assert http.get(answer.headers["location"]).json()["outcome"] == "waiting"
    ended = http.delete(answer.headers["location"])
    assert (ended.status_code, ended.json()["target"]) == (200, command["command_id"])
    with Client(backend.redis.url) as client:
        assert client.wait_for(UUID(command["command_id"])).is_waiting
        assert client.wait_for(UUID(command["command_id"]), final=True).type == "enrollment.withdrawn.v1"
    assert http.get(answer.headers["location"], headers={"Prefer": "wait=5"}).json()["outcome"] == "withdrawn"
    assert http.delete(answer.headers["location"]).json() == ended.json()


def test_a_command_that_does_not_wait_any_more_cannot_be_withdrawn(http: httpx.Client, backend: Backend) -> None:
    [command] = http.post(f"/students/{backend.new_student()}/courses", json={"course_id": 101}).json()["commands"]
    answer = http.delete(f"/commands/{command['command_id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_decided")
    later = http.delete(f"/commands/{uuid4()}", headers={"Prefer": "respond-async"})
    assert (later.status_code, later.json()["outcome"]) == (202, "pending")


def test_a_write_may_take_effect_later(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    answer = http.put(courses, json={"course_ids": [101], "effective_at": at})
    assert (answer.status_code, answer.json()["commands"][0]["until"]) == (202, at)
    final = http.get(answer.headers["location"], headers={"Prefer": "wait=10"}).json()
    assert (final["outcome"], final["issued_at"]) == ("applied", at)


def test_an_unenroll_may_take_effect_later_too_and_what_it_says_is_not_passed_over(
    http: httpx.Client, backend: Backend
) -> None:
    course = f"/students/{backend.new_student()}/courses/101"
    answer = http.request("DELETE", course, json={"effective_at": "2999-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["commands"][0]["outcome"]) == (202, "waiting")
    http.delete(answer.headers["location"])
    assert_problem(http.request("DELETE", course, json={"effective": "2999-01-01"}), 422, "invalid_command")
    assert http.delete(course).status_code == 200


def test_a_difference_that_may_wait_is_not_refused_for_what_is_not_there_yet(
    http: httpx.Client, backend: Backend
) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    difference: dict[str, Any] = {"add": [999], "remove": [998]}
    assert_problem(http.patch(courses, json=difference), 422, "unknown_courses")
    for when in ({"wait_until": "2999-01-01T00:00:00Z"}, {"effective_at": "2999-01-01T00:00:00Z"}):
        answer = http.patch(courses, json={**difference, **when})
        assert (answer.status_code, [it["outcome"] for it in answer.json()["commands"]]) == (202, ["waiting"] * 2)
        for command in answer.json()["commands"]:
            http.delete(f"/commands/{command['command_id']}")
    past = {"effective_at": "2020-01-01T00:00:00Z"}
    assert_problem(http.patch(courses, json={**difference, **past}), 422, "unknown_courses")
    with served(backend.settings(wait_for_catalog=Patience(seconds=60))) as url:
        answer = httpx.patch(f"{url}{courses}", json=difference, timeout=20)
    # Its worker is set otherwise, and rejects both: they were sent.
    assert len(assert_problem(answer, 422, "unknown_courses")["commands"]) == 2


# --- the same key is the same command


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
    said = {"json": {"course_id": 101}, "headers": {"Idempotency-Key": key, "Prefer": "wait=1"}}
    backend.worker.kill()
    try:
        again = http.post(courses, **said)  # type: ignore[arg-type]
        assert (again.status_code, again.json()["commands"][0]["command_id"]) == (202, command_id)
        assert http.get(again.headers["location"]).json()["outcome"] == "pending"
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(http.post, courses, **said)  # type: ignore[arg-type]
            with backend.client() as redis:
                eventually(lambda: redis.llen("enrollment") == 2)
            make_dead_letter(backend, command_id)
            problem = assert_problem(waiting.result(), 409, "expired")
        assert_problem(http.get(again.headers["location"]), 409, "expired")
    finally:
        backend.start_worker()
    assert problem["detail"].startswith("It came too late. It is kept as a dead letter; ")
