"""What a write over HTTP answers, when it waits or comes to nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from enrollment.client import Client
from tests.eventually import eventually
from tests.gateway import Backend, assert_problem, ids, served
from worker.settings import Patience


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
            answer = http.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"Prefer": "wait=5"})
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
    at = (datetime.now(UTC) + timedelta(seconds=4)).isoformat().replace("+00:00", "Z")
    answer = http.put(courses, json={"course_ids": [101], "effective_at": at})
    assert (answer.status_code, answer.json()["commands"][0]["until"]) == (202, at)
    final = http.get(answer.headers["location"], headers={"Prefer": "wait=15"}).json()
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
