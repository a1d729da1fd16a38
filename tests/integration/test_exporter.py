"""The numbers of `enrollment exporter` and of a worker, against servers whose state is known."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis
from sqlalchemy import Engine, text

from enrollment.ids import uuid7
from enrollment.names import APPLY, ENROLL
from tests.eventually import eventually
from tests.integration.conftest import STREAM, message
from worker import metrics
from worker.exporter import System, registry_of
from worker.service import Service
from worker.settings import Settings

Value = Callable[..., float | None]


@pytest.fixture
def registry(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", database_url)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", redis_url)
    system = System(Settings.load())
    yield registry_of(system)
    system.close()


@pytest.fixture
def value(registry: CollectorRegistry) -> Value:
    """Give a function that scrapes, and returns a sample."""
    return lambda name, **labels: registry.get_sample_value(f"enrollment_{name}", labels)


def queued(id_: object) -> str:
    return json.dumps({"body": "", "headers": {"id": str(id_), "task": ENROLL}, "properties": {}})


def version_7(age: timedelta) -> UUID:
    moment = int((datetime.now(UTC) - age).timestamp() * 1000)
    return UUID(int=moment << 80 | uuid7().int & (1 << 80) - 1)


def test_all_priorities_of_a_queue_count(redis_client: Redis, value: Value) -> None:
    redis_client.lpush("enrollment", queued(uuid4()), queued(uuid4()))
    redis_client.lpush("enrollment\x06\x169", queued(uuid4()))
    assert value("queue_messages", queue="enrollment") == 3
    assert value("queue_messages", queue="enrollment.bulk") == 0


def test_the_oldest_message_is_as_old_as_its_id_says(redis_client: Redis, value: Value) -> None:
    redis_client.lpush("enrollment", queued(version_7(timedelta(hours=1))), queued(uuid7()))
    age = value("queue_oldest_seconds", queue="enrollment")
    assert age is not None
    assert 3600 <= age < 3700


@pytest.mark.parametrize("entry", ["no JSON", "[1]", '{"headers": {"id": 7}}', b"\xff\x00", queued("none")])
def test_a_message_that_does_not_say_its_age_ages_from_when_it_was_first_seen(
    redis_client: Redis, value: Value, entry: str | bytes
) -> None:
    redis_client.lpush("enrollment", entry)
    first, second = (value("queue_oldest_seconds", queue="enrollment") for _ in range(2))
    assert first is not None
    assert second is not None
    assert 0 <= first < second


def test_claims_that_are_not_acknowledged_are_counted_with_their_age(redis_client: Redis, value: Value) -> None:
    redis_client.hset("unacked", mapping={"a": "[]", "b": "[]"})
    now = datetime.now(UTC).timestamp()
    redis_client.zadd("unacked_index", {"given back": 0, "a": now - 50, "b": now})
    assert value("unacknowledged_messages") == 2
    assert value("unacknowledged_oldest_seconds") == pytest.approx(50, abs=30)


def test_a_broker_whose_keys_have_other_names_is_measured_by_them(
    database_url: str, redis_url: str, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sep": ":", "priority_steps": list(range(10)), "global_keyprefix": "school:"}
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", database_url)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", redis_url)
    monkeypatch.setenv("ENROLLMENT_BROKER_OPTIONS", json.dumps(options))
    for key in ("enrollment", "enrollment:4", "enrollment:9", "enrollment\x06\x163"):
        redis_client.lpush(f"school:{key}", queued(version_7(timedelta(hours=1))))
    redis_client.hset("school:unacked", "a", "[]")
    redis_client.zadd("school:unacked_index", {"a": datetime.now(UTC).timestamp() - 50})
    system = System(Settings.load())
    try:
        system.heartbeats.start()
        sample = registry_of(system).get_sample_value
        assert sample("enrollment_queue_messages", {"queue": "enrollment"}) == 4
        assert (sample("enrollment_queue_oldest_seconds", {"queue": "enrollment"}) or 0) >= 3600
        assert sample("enrollment_unacknowledged_messages") == 1
        assert sample("enrollment_unacknowledged_oldest_seconds") == pytest.approx(50, abs=30)

        def heard() -> bool:
            beat(redis_url, options)
            return system.heartbeats.alive() == {"one@here": None}

        eventually(heard)
    finally:
        system.close()


def beat(url: str, options: dict[str, Any]) -> None:
    """Send the heartbeat of a worker with these transport options."""
    app = Celery("worker", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="one@here") as dispatcher:
        dispatcher.send("worker-heartbeat")


def test_outbox_and_dead_letters_are_counted(engine: Engine, value: Value) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO outbox (batch_id, command_ids, committed_at) VALUES (:id, '{}', now() - interval '1 h')"),
            {"id": uuid4()},
        )
        for key, discarded in (("a", None), ("b", None), ("c", datetime.now(UTC))):
            connection.execute(
                text(
                    "INSERT INTO dead_letters (message_key, code, message, payload, headers, discarded_at)"
                    " VALUES (:key, 'unknown_task', '', '', '{}', :discarded)"
                ),
                {"key": key, "discarded": discarded},
            )
    assert value("outbox_batches") == 1
    assert value("outbox_oldest_seconds") == pytest.approx(3600, abs=60)
    assert value("dead_letters_open", code="unknown_task") == 2
    assert value("dead_letters_open", code="expired") == 0


def test_a_feed_that_stands_still_is_seen(engine: Engine, service: Service, value: Value) -> None:
    assert value("feed_behind_seconds") == 0
    with engine.begin() as writing:
        writing.execute(text("CREATE TABLE other ()"))
        service.handle([message(ENROLL, 1, [10])])
        assert (value("feed_behind_seconds") or 0) > 0


def test_commands_that_are_put_off_are_counted_with_the_age_of_the_first(engine: Engine, value: Value) -> None:
    with engine.begin() as connection:
        for age in (3600, 60):
            connection.execute(
                text(
                    "INSERT INTO deferred_commands"
                    " (reason, waits_for, first_seen, request, task, task_id, message_key, position, headers) VALUES"
                    " ('course', 10, now() - make_interval(secs => :age), '{}', 'task', 'id', 'key', 0, '{}')"
                ),
                {"age": age},
            )
    assert value("deferred_commands", reason="course") == 2
    assert value("deferred_oldest_seconds", reason="course") == pytest.approx(3600, abs=60)
    assert value("deferred_commands", reason="student") == value("deferred_oldest_seconds", reason="student") == 0


def test_tables_have_a_size_with_and_without_partitions(engine: Engine, value: Value) -> None:
    assert (value("table_bytes", table="commands") or 0) > 0
    with engine.begin() as connection:
        for statement in (
            "DROP TABLE tombstones",
            "CREATE TABLE tombstones (id bigint) PARTITION BY HASH (id)",
            "CREATE TABLE tombstones_0 PARTITION OF tombstones FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            "INSERT INTO tombstones SELECT generate_series(1, 1000)",
            "ANALYZE tombstones",
        ):
            connection.execute(text(statement))
    assert (value("table_bytes", table="tombstones") or 0) > 8192
    assert value("table_rows", table="tombstones") == 1000


def test_a_connection_that_waits_for_a_lock_is_seen(engine: Engine, value: Value) -> None:
    assert value("database_lock_waits") == 0
    with engine.connect() as holder, engine.connect() as waiter:
        holder.execute(text("LOCK TABLE courses"))
        waiting = Thread(target=waiter.execute, args=[text("LOCK TABLE courses")])
        waiting.start()
        eventually(lambda: value("database_lock_waits") == 1)
        assert (value("database_lock_wait_seconds") or 0) > 0
        holder.rollback()
        waiting.join()


def test_how_far_groups_are_behind_is_told_and_what_they_missed(redis_client: Redis, value: Value) -> None:
    redis_client.xgroup_create(STREAM, "fast", id="0", mkstream=True)
    redis_client.xgroup_create(STREAM, "slow", id="0")
    for n in range(10):
        redis_client.xadd(STREAM, {"event": str(n)})
    redis_client.xreadgroup("fast", "me", {STREAM: ">"}, count=8)
    assert value("stream_entries") == 10
    assert (value("stream_group_lag_entries", group="fast"), value("stream_group_lag_entries", group="slow")) == (2, 10)
    assert value("stream_group_pending_entries", group="fast") == 8
    assert value("stream_group_missed", group="slow") == 0
    redis_client.xtrim(STREAM, maxlen=3, approximate=False)
    assert value("stream_entries_added_total") == 10
    assert (value("stream_group_missed", group="fast"), value("stream_group_missed", group="slow")) == (0, 1)


def test_without_a_stream_there_are_no_entries(value: Value) -> None:
    assert value("stream_entries") == value("stream_entries_added_total") == 0
    assert value("up", server="stream") == 1


def test_servers_that_are_away_are_0_and_the_others_are_served(
    registry: CollectorRegistry, value: Value, redis: Any, postgres: Any
) -> None:
    redis.kill()
    assert (value("up", server="database"), value("up", server="broker"), value("up", server="stream")) == (1, 0, 0)
    assert value("outbox_batches") == 0
    assert value("queue_messages", queue="enrollment") is None
    postgres.stop()
    assert value("up", server="database") == 0
    assert b"enrollment_up" in generate_latest(registry)


def test_a_worker_counts_what_a_known_batch_came_to(service: Service) -> None:
    def counted(outcome: str, code: str = "", command: str = "enroll", source: str = "exact") -> float:
        labels = {"command": command, "outcome": outcome, "code": code, "source": source}
        return metrics.registry.get_sample_value("enrollment_worker_commands_total", labels) or 0.0

    def seen(name: str) -> float:
        return metrics.registry.get_sample_value(f"enrollment_worker_{name}_count") or 0.0

    histograms = ("issued_to_commit_seconds", "sent_to_commit_seconds", "claim_to_commit_seconds")
    before = {name: seen(name) for name in (*histograms, "commit_to_event_seconds")}
    nameless = ("dead_letter", "command_id_missing")
    unnamed = counted(*nameless, command="", source="")  # other tests of this process may have had some
    same = uuid7()
    bulk = [{"command": "enroll", "command_id": str(uuid4()), "student_id": n, "course_ids": [10], "source": "exact"}
            for n in (1, 2)]  # fmt: skip
    service.handle(
        [
            message(ENROLL, 1, [11], task_id=same, source="exact", issued_at="2026-01-31T09:30:00Z"),
            message(ENROLL, 1, [11], task_id=same, source="exact", issued_at="2026-01-31T09:30:00Z"),
            message(ENROLL, 2, [11], task_id=same, source="exact"),
            message(ENROLL, 999, [11], source="exact"),
            message(ENROLL, 3, [999], source="exact"),
            message(ENROLL, 3, "x", source="exact"),
            message(ENROLL, 3, [11], task_id="no id", source="exact"),
            message(APPLY, commands=bulk),
        ]
    )
    assert counted("applied") == 3
    assert counted("repeat") == 1
    assert counted("dead_letter", "command_id_reused") == 1
    codes = ("unknown_student", "unknown_courses", "invalid_command")
    assert [counted("rejected", code) for code in codes] == [1, 1, 1]
    assert counted(*nameless, command="", source="") == unnamed + 1
    grown = {name: seen(name) - number for name, number in before.items()}
    assert grown == {
        "issued_to_commit_seconds": 2,  # of the command and its repeat
        "sent_to_commit_seconds": 3,  # all under the id of version 7
        "claim_to_commit_seconds": 9,
        "commit_to_event_seconds": 6,  # applied and rejected
    }
