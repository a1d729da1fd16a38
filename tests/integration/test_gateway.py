"""Lookups and writes over HTTP, as a client meets them; the outcome is a real worker's."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from gateway.writing import repeatable_id
from tests.gateway import STUDENTS, Backend, eventually


def ids(answer: httpx.Response) -> list[int]:
    return [course["id"] for course in answer.json()["courses"]]


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:enrollment:problem:{code}"
    assert problem["detail"].endswith(".")
    return problem


# --- writes


def test_every_way_to_enroll_answers_with_the_courses_and_the_effects(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    answer = http.post(f"/students/{student}/courses", json={"course_ids": [102, 101]})
    assert (answer.status_code, ids(answer)) == (200, [101, 102])
    assert answer.json()["effects"] == {"enrolled": [101, 102], "unenrolled": [], "unchanged": [], "superseded": []}
    answer = http.post(f"/students/{student}/courses", json={"course_id": 103})
    assert ids(answer) == [101, 102, 103]
    answer = http.post("/students/enroll", json={"student_id": student, "course_ids": [103, 104]})
    assert ids(answer) == [101, 102, 103, 104]
    assert answer.json()["effects"]["unchanged"] == [103]
    (command,) = answer.json()["commands"]
    assert (command["outcome"], command["source"], command["course_ids"]) == ("applied", "http/local", [103, 104])


def test_replace_and_unenroll(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    http.post(courses, json={"course_ids": [101, 102]})
    assert ids(http.put(courses, json={"course_ids": [102, 103]})) == [102, 103]
    answer = http.delete(f"{courses}/102")
    assert (ids(answer), answer.json()["effects"]["unenrolled"]) == ([103], [102])
    assert ids(http.put(courses, json={"course_ids": []})) == []


def test_a_change_is_two_commands_and_one_outcome(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    http.post(courses, json={"course_ids": [101, 102]})
    answer = http.patch(courses, json={"add": [103], "remove": [101]})
    assert ids(answer) == [102, 103]
    assert answer.json()["effects"] == {"enrolled": [103], "unenrolled": [101], "unchanged": [], "superseded": []}
    assert [command["command"] for command in answer.json()["commands"]] == ["enroll", "unenroll"]
    assert ids(http.patch(courses, json={"remove": [102]})) == [103]
    problem = assert_problem(
        http.patch(courses, json={"add": [104, 999], "remove": [103, 998]}), 422, "unknown_courses"
    )
    assert problem["ids"] == [998, 999]
    assert ids(http.get(courses)) == [103]


def test_a_rejection_names_what_is_unknown_and_what_to_do(http: httpx.Client, backend: Backend) -> None:
    problem = assert_problem(http.delete("/students/999999/courses/101"), 404, "unknown_student")
    assert problem["ids"] == [999999]
    courses = f"/students/{backend.new_student()}/courses"
    for answer in (
        http.post(courses, json={"course_ids": [101, 999, 998]}),
        http.put(courses, json={"course_ids": [998, 999]}),
    ):
        problem = assert_problem(answer, 422, "unknown_courses")
        assert (problem["ids"], problem["fields"]) == ([998, 999], ["course_ids"])
        assert "998, 999" in problem["detail"]
        assert "Create them" in problem["detail"]
        for said in (problem["detail"], problem["errors"][0]["message"]):
            assert said.endswith("then send the request again with a new Idempotency-Key.")
    command = http.get(f"/commands/{problem['commands'][0]['command_id']}").json()
    assert (command["outcome"], command["errors"][0]["code"]) == ("rejected", "unknown_courses")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"course_id": 101, "course_ids": [101]}, "body"),
        ({"course_ids": []}, "course_ids"),
        ({"course_ids": ["101"]}, "course_ids"),
        ({"course_ids": [101.0]}, "course_ids"),
        ({"course_ids": [True]}, "course_ids"),
        ({"course_ids": None}, "course_ids"),
        ({"course_ids": [2**63]}, "course_ids"),
        ({"course_ids": list(range(1, 1002))}, "course_ids"),
        ({"course_id": 0}, "course_id"),
        ({"course_id": 101, "corse": 1}, "corse"),
        ([101], "body"),
        ("101", "body"),
    ],
)
def test_a_body_that_says_no_command_is_refused_with_its_field(http: httpx.Client, body: Any, field: str) -> None:
    problem = assert_problem(http.post("/students/1/courses", json=body), 422, "invalid_command")
    assert problem["fields"] == [field]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"course_ids": []}, "course_ids: an empty list."),
        ({"course_ids": "101"}, "course_ids: not a list."),
        ({"course_ids": ["101"]}, "course_ids.0: not an integer."),
        ({"course_ids": list(range(1, 1002))}, "course_ids: more than 1000 in a list."),
        ({"course_id": 0}, "course_id: less than 1."),
        ({"course_id": 2**63}, f"course_id: more than {2**63 - 1}."),
        ([101], "body: not a JSON object."),
    ],
)
def test_a_refusal_speaks_of_json_and_not_of_python(http: httpx.Client, body: Any, said: str) -> None:
    problem = assert_problem(http.post("/students/1/courses", json=body), 422, "invalid_command")
    assert problem["detail"] == f"{said} Correct it and send the request again."


def test_a_key_that_is_none_is_told_what_one_is(http: httpx.Client) -> None:
    for key in (b"", b"x" * 256, b"\xc3\xa9"):
        answer = http.delete("/students/1/courses/101", headers={b"Idempotency-Key": key})
        detail = assert_problem(answer, 422, "invalid_command")["detail"]
        assert detail.startswith("Idempotency-Key: not 1 to 255 printable ASCII characters.")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"course_id": 101, "course_id": 102}', "course_id"),
        ('{"course_ids": [101], "more": {"a": 1, "a": 1}}', "a"),
        ('{"\\ud800": 1, "\\ud800": 2}', "?"),
    ],
)
def test_a_field_that_is_said_twice_is_refused(http: httpx.Client, body: str, named: str) -> None:
    answer = http.post("/students/1/courses", content=body, headers={"Content-Type": "application/json"})
    problem = assert_problem(answer, 400, "bad_request")
    assert problem["fields"] == [named]
    assert problem["detail"].startswith(f"{named} stands twice in the body.")


def test_adding_and_removing_the_same_course_is_refused(http: httpx.Client) -> None:
    answer = http.patch("/students/1/courses", json={"add": [101, 102], "remove": [102]})
    assert "at once: 102" in assert_problem(answer, 422, "invalid_command")["detail"]
    said: list[dict[str, list[int]]] = [{}, {"add": []}, {"add": [], "remove": []}]
    for nothing in said:
        problem = assert_problem(http.patch("/students/1/courses", json=nothing), 422, "invalid_command")
        assert "say courses to add, courses to remove, or both" in problem["detail"]


def test_of_a_change_one_half_may_be_empty(http: httpx.Client, backend: Backend) -> None:
    courses = f"/students/{backend.new_student()}/courses"
    assert ids(http.patch(courses, json={"add": [101, 102], "remove": []})) == [101, 102]
    answer = http.patch(courses, json={"add": [], "remove": [101]})
    assert (ids(answer), [it["command"] for it in answer.json()["commands"]]) == ([102], ["unenroll"])


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


def bury(backend: Backend, command_id: str, age: str = "0") -> None:
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
    bury(backend, command_id, "1 hour")
    bury(backend, command_id, "1 second")
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
            bury(backend, command_id)
            problem = assert_problem(waiting.result(), 409, "expired")
        assert_problem(http.get(again.headers["location"]), 409, "expired")
    finally:
        backend.start_worker()
    assert problem["detail"].startswith("It came too late. It is kept as a dead letter; ")


# --- lookups


def test_students_and_courses_come_page_by_page_along_their_links(http: httpx.Client) -> None:
    seen: list[int] = []
    url: str | None = "/students?limit=150"
    while url:
        answer = http.get(url)
        seen += [student["id"] for student in answer.json()["items"]]
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert seen == list(range(1, STUDENTS + 1))
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
        waiting = pool.submit(http.get, f"/commands/{asked}", headers={"Prefer": "wait=2"})
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
