"""The result events over HTTP: live, resumable, and cheap enough for hundreds of streams."""

import asyncio
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from redis import Redis

from gateway.event_listener import EventListener
from gateway.event_stream import Stream, connect
from gateway.sse import MAX_OF_CLIENT, has_room
from tests.eventually import eventually
from tests.gateway import Backend, served
from worker.credentials import ApiKey, Scope


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
        assert answer.json()["detail"].startswith("Last-Event-ID: not the id of an event, such as ")


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
        for each in lines:  # what an earlier test has left to be told may come first
            assert any(event["id"] == command for _, event in entries(each))
        assert threading.active_count() < threads + 20
        for stream in streams:
            stream.close()
        eventually(lambda: "enrollment_gateway_event_streams 0.0" in http.get(f"{url}/metrics").text)


def test_one_client_cannot_take_the_streams_of_all(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sse.MAX_OF_CLIENT", 2)
    monkeypatch.setattr("gateway.sse.MAX_STREAMS", 3)
    clients = [ApiKey.create(name, [Scope.READ]) for name in ("portal", "dashboard", "batch")]
    settings = backend.settings(gateway_keys=tuple(client for client, _ in clients))
    opened: list[Iterator[str]] = []
    portal, dashboard, batch = ({"X-API-Key": key} for _, key in clients)
    with served(settings) as url, httpx.Client(base_url=url, timeout=20) as http, ExitStack() as streams:

        def open_one(headers: dict[str, str]) -> int:
            answer = streams.enter_context(http.stream("GET", "/events", headers=headers))
            if answer.status_code == 200:
                opened.append(answer.iter_lines())
                next(opened[-1])
            else:
                assert json.loads(answer.read())["code"] == "unavailable"
                assert answer.headers["retry-after"] == "30"
            return answer.status_code

        assert [open_one(portal) for _ in range(3)] == [200, 200, 503]
        assert [open_one(dashboard), open_one(batch)] == [200, 503]
        streams.close()
        eventually(lambda: open_one(batch) == 200)


def test_a_burst_of_streams_is_not_let_in_beyond_the_limit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sse.MAX_OF_CLIENT", 5)

    async def burst(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as http, AsyncExitStack() as streams:
            asked = (streams.enter_async_context(http.stream("GET", "/events")) for _ in range(60))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    with served(backend.settings()) as url:
        for _ in range(2):
            assert sorted(asyncio.run(burst(url))) == [200] * 5 + [503] * 55
            eventually(lambda: "enrollment_gateway_event_streams 0.0" in httpx.get(f"{url}/metrics").text)


def test_who_leaves_during_a_replay_is_written_to_no_more(
    own_stream: tuple[httpx.Client, Redis, str], caplog: pytest.LogCaptureFixture
) -> None:
    http, redis, key = own_stream
    with redis.pipeline() as pipeline:
        for number in range(2000):
            pipeline.xadd(key, {"event": json.dumps({"n": number, "long": "x" * 500})})
        pipeline.execute()
    for _ in range(20):
        with socket.create_connection((http.base_url.host, http.base_url.port or 80)) as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n")
            while b"data: " not in client.recv(65536):
                pass
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # hang up at once
    eventually(lambda: "enrollment_gateway_event_streams 0.0" in http.get("/metrics").text)
    assert [it for it in caplog.messages if "socket.send()" in it] == []


def test_three_hundred_streams_of_one_client_have_room() -> None:
    listener = EventListener(cast("Stream", None))
    with ExitStack() as streams:
        for _ in range(MAX_OF_CLIENT):
            assert has_room(listener, "portal")
            streams.enter_context(listener.counted("portal"))
        assert MAX_OF_CLIENT >= 200
        assert not has_room(listener, "portal")
        assert has_room(listener, "dashboard")
    assert (listener.watching, listener.watching_of("portal")) == (0, 0)


@pytest.fixture
def own_stream(backend: Backend) -> Iterator[tuple[httpx.Client, Redis, str]]:
    """Give a gateway with a stream of its own, which nobody else writes to."""
    key = f"events-{uuid4()}"
    with (
        served(backend.settings(events_stream=key)) as url,
        httpx.Client(base_url=url, timeout=20) as http,
        backend.client() as redis,
    ):
        yield http, redis, key


def test_who_resumes_after_what_was_trimmed_is_told(own_stream: tuple[httpx.Client, Redis, str]) -> None:
    http, redis, key = own_stream
    ids = [str(redis.xadd(key, {"event": json.dumps({"n": number})})) for number in range(6)]
    redis.xtrim(key, maxlen=2, approximate=False)
    live = iter(range(100, 200))

    def resumed(position: str, count: int) -> list[tuple[str, Any]]:
        with http.stream("GET", "/events", headers={"Last-Event-ID": position}) as answer:
            found = named(answer.iter_lines())
            seen = [next(found) for _ in range(count)]
            number = next(live)
            redis.xadd(key, {"event": json.dumps({"n": number})})  # and it goes on
            assert next(found) == ("message", {"n": number})
            redis.xdel(key, str(redis.xrevrange(key, count=1)[0][0]))  # type: ignore[index]
            return seen

    kept = [("message", {"n": 4}), ("message", {"n": 5})]
    assert resumed(ids[4], 1) == kept[1:]
    assert resumed("0", 2) == kept
    [(name, told), *rest] = resumed(ids[1], 3)
    assert (name, told["code"], told["after"], rest) == ("missed", "events_missed", ids[1], kept)
    assert "GET /students" in told["detail"]
    assert [name for name, _ in resumed("9" * 19, 3)] == ["missed", "message", "message"]  # of another stream
    redis.xtrim(key, maxlen=0, approximate=False)
    assert [name for name, _ in resumed(ids[5], 1)] == ["missed"]
    redis.delete(key)
    assert [name for name, _ in resumed(ids[5], 1)] == ["missed"]


def named(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Read server-sent events: the name, and the data."""
    name = "message"
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])
        elif not line:
            name = "message"


def test_streams_end_when_the_gateway_itself_missed_events(
    backend: Backend, own_stream: tuple[httpx.Client, Redis, str]
) -> None:
    _, redis, key = own_stream

    async def listen() -> None:
        client = connect(backend.redis.url)
        listener = EventListener(Stream(client, key))
        listener._position = str(redis.xadd(key, {"event": "{}"}))  # where it was when the connection was lost
        redis.xadd(key, {"event": "{}"})
        redis.xadd(key, {"event": "{}"})
        redis.xtrim(key, maxlen=1, approximate=False)
        with listener.watched() as watcher:
            listener.start()
            assert await watcher.get(5) is None
        await listener.stop()
        await client.aclose()

    asyncio.run(listen())


def test_the_gateway_outlives_its_redis(http: httpx.Client, backend: Backend) -> None:
    student = backend.new_student()
    backend.redis.kill()
    away = [http.get("/readyz"), http.post(f"/students/{student}/courses", json={"course_id": 101})]
    backend.redis.start()
    assert [answer.status_code for answer in away] == [503, 503]
    assert away[0].headers["content-type"] == "application/problem+json"
    assert (away[0].json()["code"], away[0].json()["broker"]) == ("unavailable", "away")
    assert "broker" in away[0].json()["detail"]
    assert (away[1].json()["code"], away[1].headers["retry-after"]) == ("unavailable", "5")
    assert len(away[1].json()["command_ids"]) == 1
    eventually(lambda: http.get("/readyz").status_code == 200)
    answer = http.post(f"/students/{student}/courses", json={"course_id": 101}, headers={"Prefer": "wait=20"})
    assert [course["id"] for course in answer.json()["courses"]] == [101]


def test_a_redis_that_hangs_is_not_ready(http: httpx.Client, backend: Backend) -> None:
    eventually(lambda: http.get("/readyz").status_code == 200)
    os.kill(backend.redis.pid, signal.SIGSTOP)
    try:
        found: Any = eventually(lambda: (it := http.get("/readyz")).status_code == 503 and it.json())
    finally:
        os.kill(backend.redis.pid, signal.SIGCONT)
    assert (found["broker"], found["events"]) == ("away", "away")
    eventually(lambda: http.get("/readyz").status_code == 200)


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
