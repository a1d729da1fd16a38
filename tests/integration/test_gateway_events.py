"""The result events over HTTP: live, resumable, and cheap enough for hundreds of streams."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx

from tests.gateway import Backend, eventually, served


def entries(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read server-sent events: the id, and the data."""
    id_ = ""
    for line in lines:
        if line.startswith("id: "):
            id_ = line[4:]
        if line.startswith("data: "):
            yield id_, json.loads(line[6:])


def enroll(http: httpx.Client, student: int, course: int) -> str:
    answer = http.post(f"/students/{student}/courses", json={"course_id": course})
    return str(answer.json()["commands"][0]["command_id"])


def test_events_come_live_and_a_stream_resumes_after_the_last_one_seen(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    with http.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        first = enroll(http, student, 101)
        seen, event = next(entries(lines))
    assert (event["id"], event["type"], event["subject"]) == (first, "enrollment.applied.v1", f"students/{student}")
    missed = [enroll(http, student, course) for course in (102, 103)]
    with http.stream("GET", "/events", headers={"Last-Event-ID": seen}) as answer:
        events = entries(answer.iter_lines())
        found = [next(events)[1]["id"] for _ in missed]
        live = enroll(http, student, 104)
        assert [*found, next(events)[1]["id"]] == [*missed, live]


def test_all_that_is_kept_can_be_read_in_order_and_once(http: httpx.Client, backend: Backend) -> None:
    with backend.client() as redis:
        for number in range(1200):  # more than two pages
            redis.xadd("enrollment.events", {"event": json.dumps({"id": str(UUID(int=number)), "n": number})})
        kept = redis.xlen("enrollment.events")
    with http.stream("GET", "/events", headers={"Last-Event-ID": "0"}) as answer:
        events = entries(answer.iter_lines())
        ids = [next(events)[0] for _ in range(int(str(kept)))]
        enroll(http, backend.new_student(), 101)
        ids.append(next(events)[0])
    order = [tuple(map(int, id_.split("-"))) for id_ in ids]
    assert order == sorted(set(order))


def test_a_position_that_is_none_is_refused(http: httpx.Client) -> None:
    for position in ("x", "1-2-3", "-1", "$", "9" * 30):
        answer = http.get("/events", headers={"Last-Event-ID": position})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_two_hundred_streams_are_open_on_one_process_without_a_thread_each(backend: Backend) -> None:
    with served(backend.settings()) as url, httpx.Client(limits=httpx.Limits(max_connections=300), timeout=30) as http:
        threads = threading.active_count()
        streams = [http.send(http.build_request("GET", f"{url}/events"), stream=True) for _ in range(200)]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            next(each)
        eventually(lambda: "enrollment_gateway_event_streams 200.0" in http.get(f"{url}/metrics").text)
        answer = http.post(f"{url}/students/{backend.new_student()}/courses", json={"course_id": 101})
        command = answer.json()["commands"][0]["command_id"]
        assert {next(entries(each))[1]["id"] for each in lines} == {command}
        assert threading.active_count() < threads + 20
        for stream in streams:
            stream.close()
        eventually(lambda: "enrollment_gateway_event_streams 0.0" in http.get(f"{url}/metrics").text)


def test_the_gateway_outlives_its_redis(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    backend.redis.kill()
    away = [http.get("/readyz"), http.post(f"/students/{student}/courses", json={"course_id": 101})]
    backend.redis.start()
    assert [answer.status_code for answer in away] == [503, 503]
    assert away[0].json()["broker"] == "away"
    assert (away[1].json()["code"], away[1].headers["retry-after"]) == ("unavailable", "5")
    assert len(away[1].json()["command_ids"]) == 1
    eventually(lambda: http.get("/readyz").status_code == 200)
    answer = http.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"Prefer": "wait=20"})
    assert [course["id"] for course in answer.json()["courses"]] == [101]


def test_what_is_no_event_stops_nobody(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    later = {"id": str(UUID(int=5)), "type": "enrollment.applied.v2", "data": {}}
    with backend.client() as redis, http.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        for entry in (b"\xff", b"null", json.dumps(later).encode()):
            redis.xadd("enrollment.events", {"event": entry})
        http.get(f"/commands/{UUID(int=5)}", headers={"Prefer": "wait=1"})
        written = http.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"Prefer": "wait=20"})
        assert written.elapsed.total_seconds() < 10
        assert [course["id"] for course in written.json()["courses"]] == [101]
        assert any(f"students/{student}" in line for line in lines)
    assert http.get("/readyz").status_code == 200
