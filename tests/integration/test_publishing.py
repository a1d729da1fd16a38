import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis import Redis
from sqlalchemy import Engine

from enrollment.commands import Enroll
from enrollment.fold import Record, fold
from enrollment.names import ENROLL
from enrollment.state import State, StudentState
from models import outbox
from tests.acceptance.faults.proxy import Proxy
from tests.integration.conftest import STREAM, message
from worker import publishing
from worker.local.redis import Redis as RedisServer
from worker.publishing import Publisher, connect
from worker.scripts import Script, Scripts
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


def test_events_of_a_dead_worker_are_relayed_once_in_order_of_commit(
    service: Service, monkeypatch: pytest.MonkeyPatch, rows: Rows, events: Events
) -> None:
    with monkeypatch.context() as patch:  # as if killed right after each commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        for course in range(10, 15):
            service.handle([message(ENROLL, 1, [course])])
    assert events() == []
    assert service.relay() == 0, "fresh batches are left to the worker that wrote them"
    assert service.relay(older_than=0) == 5
    assert [e["data"]["enrolled"] for e in events()] == [[10], [11], [12], [13], [14]]
    assert rows("*", "outbox") == []


def test_relays_and_workers_at_once_publish_each_event_once(
    service: Service, engine: Engine, publisher: Publisher, events: Events, rows: Rows
) -> None:
    def work(n: int) -> int:
        mine = Service(engine, publisher)
        if n % 2:
            return sum(mine.relay(older_than=0) for _ in range(20))
        mine.handle([message(ENROLL, 1, [10]) for _ in range(20)])
        return 0

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    service.relay(older_than=0)
    assert len(events()) == len({e["id"] for e in events()}) == 120
    assert rows("*", "outbox") == []


def test_a_forked_process_has_its_own_connection(redis_url: str, redis_client: Redis) -> None:
    def connections() -> int:
        return int(redis_client.info("stats")["total_connections_received"])

    with connect(redis_url) as client:
        scripts, script = Scripts(lambda: client.connection_pool), Script("return 1")
        scripts.run(script, 0)
        before = connections()
        child = os.fork()
        if not child:
            try:
                scripts.run(script, 0)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        scripts.run(script, 0)
        assert connections() == before + 1


def test_a_batch_that_was_published_and_not_settled_is_not_published_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    with monkeypatch.context() as patch:  # as if killed between publishing and settling
        patch.setattr(outbox, "settle_at_once", lambda *_: None)
        service.handle([message(ENROLL, 1, [10])])
    assert service.relay(older_than=0) == 0
    assert len(events()) == 1


def test_commands_go_on_while_the_stream_is_away_and_its_events_catch_up(
    service: Service, redis: RedisServer, redis_url: str, rows: Rows, events: Events
) -> None:
    redis.kill()
    for course in (10, 11):
        assert service.handle([message(ENROLL, 1, [course])]) == ["applied"]
    assert len(rows("*", "outbox")) == 2
    assert service.relay() == 0
    redis.start()
    service._relay._not_before = 0
    service.handle([message(ENROLL, 1, [12])])
    assert [e["data"]["enrolled"] for e in events()] == [[10], [11], [12]]
    assert rows("*", "outbox") == []


def test_the_stream_is_trimmed_to_its_length(
    engine: Engine, redis_client: Redis, catalog: None, publisher: Publisher
) -> None:
    publisher._maxlen = 100
    service = Service(engine, publisher)
    service.handle([message(ENROLL, 1, [10]) for _ in range(500)])
    service.handle([message(ENROLL, 1, [10]) for _ in range(500)])
    assert redis_client.xlen(STREAM) < 300


def test_a_stream_key_of_another_type_loses_no_event(service: Service, redis_client: Redis, events: Events) -> None:
    redis_client.set(STREAM, "no stream")
    service.handle([message(ENROLL, 1, [10])])
    assert redis_client.keys("*batch*") == []
    redis_client.delete(STREAM)
    service._relay._not_before = 0
    service.handle([message(ENROLL, 1, [11])])
    assert [e["data"]["enrolled"] for e in events()] == [[10], [11]]


def test_a_stream_that_failed_over_behind_its_address_is_found_though_the_old_connection_stays(
    engine: Engine, catalog: None, redis: RedisServer, server_folder: Path
) -> None:
    with RedisServer(server_folder / "new_master") as new:
        Redis.from_url(new.url).config_set("requirepass", redis.password)
        proxy = Proxy(redis.port)
        client = connect(f"redis://:{redis.password}@127.0.0.1:{proxy.listens_on}/0")
        service = Service(engine, Publisher(client, stream=STREAM, maxlen=100_000))
        service.handle([message(ENROLL, 1, [10])])
        with Redis.from_url(redis.url) as old:
            old.replicaof("127.0.0.1", str(new.port))  # read-only from here on, and still there
        proxy.port = new.port
        service.handle([message(ENROLL, 1, [11])])  # refused, and kept in the outbox
        service._relay._not_before = 0
        service.relay(older_than=0)
        with Redis.from_url(f"redis://:{redis.password}@127.0.0.1:{new.port}/0") as master:
            assert master.xlen(STREAM) == 1
        client.close()
        proxy.close()


@pytest.mark.parametrize(
    ("read", "kept"),
    [(0, 3000), (4900, 1000)],
    ids=["what a group has not read is kept up to the second length", "what all groups have read goes"],
)
def test_the_stream_keeps_for_groups(redis_client: Redis, read: int, kept: int) -> None:
    redis_client.xgroup_create(STREAM, "library", id="0", mkstream=True)
    for start in range(0, 5000, 500):
        publish(redis_client, range(start, start + 500))
        if read:
            reply: Any = redis_client.xreadgroup("library", "one", {STREAM: ">"}, count=500)
            redis_client.xack(STREAM, "library", *(entry_id for entry_id, _ in reply[0][1]))
    assert kept <= redis_client.xlen(STREAM) < kept + 300


def test_the_stream_keeps_what_a_group_has_read_and_not_acknowledged(redis_client: Redis) -> None:
    redis_client.xgroup_create(STREAM, "library", id="0", mkstream=True)
    publish(redis_client, range(2000))
    redis_client.xreadgroup("library", "one", {STREAM: ">"}, count=2000)
    publish(redis_client, range(2000, 2500))
    assert redis_client.xlen(STREAM) == 2500


def test_nothing_is_kept_for_a_group_that_was_given_up(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SILENT", -1)
    redis_client.xgroup_create(STREAM, "library", id="0", mkstream=True)
    redis_client.xreadgroup("library", "one", {STREAM: ">"})
    publish(redis_client, range(2000))
    assert redis_client.xlen(STREAM) < 1300


def publish(client: Redis, numbers: range) -> None:
    publisher = Publisher(client, stream=STREAM, maxlen=1000, most=3000)
    state = State(students={1: StudentState()}, courses={10})
    commands = [Enroll(command_id=UUID(int=n + 1), student_id=1, course_ids=(10,)) for n in numbers]
    verdicts = fold(state, commands, datetime.now(UTC)).verdicts
    publisher.publish(uuid4(), [it for it in verdicts if isinstance(it, Record)])
