"""Writes over HTTP, as a client meets them; the outcome is a real worker's."""

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.gateway import Backend, assert_problem, ids


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


def test_a_client_that_sends_no_more_is_answered(gateway_url: str) -> None:
    it = urlsplit(gateway_url)
    for path, status in [("/healthz", b"200"), ("/nothing", b"404")] * 5:
        with socket.create_connection((it.hostname, it.port or 80), timeout=20) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            assert client.recv(65536).startswith(b"HTTP/1.1 " + status)
