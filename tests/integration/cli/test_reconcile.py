"""`enrollment reconcile`: each store restored from a copy of before, and judged by the oracle of the fault suite."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import Engine

from enrollment.consumer import EventsMissed, Feed, GroupConsumer, Reader
from enrollment.names import ENROLL
from models import feed
from tests.acceptance.faults.oracle import Verdict, as_events
from tests.gateway import served
from tests.integration.cli.conftest import Result, Run
from tests.integration.cli.restored_world import World
from tests.integration.conftest import STREAM, message
from worker.local.postgres import Postgres
from worker.service import Service
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("nobody_answers")


@pytest.fixture
def world(postgres: Postgres, database_url: str, redis_client: Redis, service: Service, engine: Engine) -> World:
    return World(postgres, redis_client, database_url, [engine, service._engine], service)


def repaired(run: Run, *options: str) -> Result:
    """Repair, and make sure that there is nothing to do a second time."""
    assert run("reconcile").code == 1
    done = run("reconcile", "--repair", *options)
    assert done.code == 0, done.output
    assert run("reconcile").code == 0
    return done


def test_there_is_nothing_to_do_where_nothing_was_restored(world: World, run: Run) -> None:
    world.say(40)
    done = run("reconcile")
    assert done.code == 0, done.output
    assert "agree" in done.output


def test_what_is_no_event_on_the_stream_is_passed_over(world: World, run: Run) -> None:
    world.say(5)
    for name, garbage in (("event", b"\xff"), ("event", b"{}"), ("other", b"x")):
        world.redis.xadd(STREAM, {name: garbage})
    assert run("reconcile").code == 0
    assert [it for it in run("doctor", "--json").json_lines if it["name"] == "epoch"] == []


def test_doctor_says_that_the_stream_was_deleted_although_events_came_since(
    world: World, run: Run, load: Callable[[str], None]
) -> None:
    def told() -> list[str]:
        return [it["message"] for it in run("doctor", "--json").json_lines if it["name"] == "epoch"]

    world.say(20)
    load("UPDATE commands SET processed_at = processed_at - interval '10 minutes'")
    world.redis.delete(STREAM)
    world.say(5)
    [message] = told()
    assert "deleted and begun anew" in message
    run("reconcile", "--repair")
    world.service.relay(older_than=0)
    assert told() == []


@pytest.mark.parametrize("restored", ["database", "redis"])
def test_doctor_says_that_a_store_was_restored(world: World, run: Run, restored: str) -> None:
    if restored == "database":
        copy = world.copy_database()
        world.say(20)
        world.restore_database(copy)
    else:
        world.say(20)
        world.redis.flushall()
    [found] = [it for it in run("doctor", "--json").json_lines if it["name"] == "epoch"]
    assert ("epoch" if restored == "database" else "enrollment reconcile") in found["advice"]
    run("reconcile", "--repair")
    world.service.relay(older_than=0)
    assert [it for it in run("doctor", "--json").json_lines if it["name"] == "epoch"] == []


def test_a_database_of_before_gets_back_what_the_stream_told(world: World, run: Run) -> None:
    world.say(40)
    copy = world.copy_database()
    world.say(40)
    before = world.redis.xlen(STREAM)
    world.restore_database(copy)
    repaired(run)
    assert world.redis.xlen(STREAM) == before
    assert world.judged() == Verdict(world.sent_log.commands)
    world.deliver(world.said)  # as of a queue of before, and of producers that are not sure
    assert world.judged() == Verdict(world.sent_log.commands)


def test_an_entry_by_another_hand_keeps_nothing_from_being_put_back(world: World, run: Run) -> None:
    copy = world.copy_database()
    world.say(5)
    [(_, first)] = cast(Any, world.redis.xrange(STREAM, count=1))
    forged = json.loads(first["event"]) | {"id": str(uuid4()), "traceparent": "a\0b"}
    forged["data"] |= {"command_id": forged["id"], "source": "a\0b"}
    world.redis.xadd(STREAM, {"event": json.dumps({**forged, "type": "enrollment.rejected.v1"})})
    world.restore_database(copy)
    assert "5 commands put back" in repaired(run).output


@pytest.mark.parametrize("restored", ["of before", "that is empty"])
def test_a_redis_is_told_again_what_it_lost(world: World, run: Run, restored: str) -> None:
    world.say(40)
    copy = world.copy_redis() if restored == "of before" else {}
    world.say(40)
    world.restore_redis(copy)
    repaired(run)
    assert world.judged() == Verdict(world.sent_log.commands)


@pytest.mark.parametrize("first", ["database", "redis"])
def test_both_from_different_times_agree_when_producers_repeat_what_neither_has(
    world: World, run: Run, first: str
) -> None:
    copies: dict[str, Any] = {}
    for store in (first, "redis" if first == "database" else "database"):
        world.say(40)
        copies[store] = world.copy_database() if store == "database" else world.copy_redis()
    since = len(world.said)
    world.say(40)
    world.restore_database(copies["database"])
    world.restore_redis(copies["redis"])
    repaired(run)
    world.deliver(world.said[since:])
    assert world.judged() == Verdict(world.sent_log.commands)


def test_copies_that_know_what_neither_has_are_told_to_begin_anew(world: World, run: Run, engine: Engine) -> None:
    copies = world.copy_database(), world.copy_redis()
    world.say(20)
    with engine.connect() as connection:
        cursor = str(feed.page(connection, None, rows=1).cursor)
    with Reader(world.redis_url, position=world.last, wait=0.1) as reader:
        world.restore_database(copies[0])
        world.restore_redis(copies[1])
        assert run("reconcile", "--repair", "--anew").code == 0
        world.say(20)  # the stream grows past where the reader was
        with pytest.raises(EventsMissed):
            reader.read()
    with engine.connect() as connection, pytest.raises(feed.ChangesGone):
        feed.page(connection, cursor, rows=1)
    assert world.redis.xlen(STREAM)


@pytest.mark.parametrize("follower", ["reader", "group"])
def test_a_feed_does_not_keep_copies_from_being_told_to_begin_anew(
    world: World, run: Run, variables: dict[str, str], follower: str
) -> None:
    copy = world.copy_database()
    world.say(20)
    settings = Settings.model_validate(
        {key.removeprefix("ENROLLMENT_").lower(): value for key, value in variables.items()}
    )
    with ExitStack() as stack:
        follow: dict[str, Any] = {"wait": 0.1, "feed": Feed(stack.enter_context(served(settings)))}
        group = stack.enter_context(closing(GroupConsumer(world.redis_url, group="g", name="a", **follow)))
        group.read().acknowledge()
        reader = stack.enter_context(Reader(world.redis_url, position=world.last, **follow))
        world.restore_database(copy)
        assert run("reconcile", "--repair", "--anew").code == 0
        world.say(20)
        with pytest.raises(EventsMissed):
            (group if follower == "group" else reader).read()


def test_what_the_catalog_lacks_is_named_and_put_back_when_it_is_there(
    world: World, run: Run, load: Callable[[str], None], engine: Engine
) -> None:
    copy = world.copy_database()
    load("INSERT INTO courses (id) VALUES (77)")
    world.service.handle([message(ENROLL, 1, [77]), message(ENROLL, 2, [10])])
    world.restore_database(copy)
    with engine.connect() as connection:
        cursor = str(feed.page(connection, None, rows=1).cursor)
    done = run("reconcile", "--repair")
    assert done.code == 1
    assert "courses 77" in done.error
    with engine.connect() as connection, pytest.raises(feed.ChangesGone):
        feed.page(connection, cursor, rows=1)
    load("INSERT INTO courses (id) VALUES (77)")
    repaired(run)
    assert world.pairs() == [(1, 77), (2, 10)]
    assert world.redis.xlen(STREAM) == 2


def test_a_command_that_waited_waits_again_and_is_told_once(
    world: World, run: Run, load: Callable[[str], None], rows: Callable[..., Any]
) -> None:
    copy = world.copy_database()
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    world.service.handle([message(ENROLL, 1, [77], wait_until=until)])
    world.restore_database(copy)
    repaired(run)
    load("INSERT INTO courses (id) VALUES (77)")
    world.service.release()
    entries: Any = world.redis.xrange(STREAM)
    assert [event["type"] for event in as_events(fields for _, fields in entries)] == [
        "enrollment.waiting.v1",
        "enrollment.applied.v1",
    ]
    assert world.pairs() == [(1, 77)]


def test_a_command_that_waits_in_the_copy_and_was_decided_since_is_not_decided_again(
    world: World, run: Run, load: Callable[[str], None], rows: Callable[..., Any]
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    world.service.handle([message(ENROLL, 1, [77], wait_until=until)])
    copy = world.copy_database()
    load("INSERT INTO courses (id) VALUES (77)")
    world.service.release()
    world.restore_database(copy)
    load("INSERT INTO courses (id) VALUES (77)")
    repaired(run)
    world.service.release()
    assert world.redis.xlen(STREAM) == 2
    assert rows("outcome", "commands") == [("applied",)]
    assert rows("*", "deferred_commands") == []
    assert world.pairs() == [(1, 77)]


def test_a_repeat_of_what_was_put_back_is_one_whatever_time_it_says_and_another_content_is_refused(
    world: World, run: Run, rows: Callable[..., Any]
) -> None:
    copy = world.copy_database()
    said = message(ENROLL, 1, [10])
    world.service.handle([said])
    world.restore_database(copy)
    repaired(run)
    world.service.handle([said, message(ENROLL, 1, [11], task_id=said.task_id)])
    assert world.pairs() == [(1, 10)]
    assert rows("code", "dead_letters") == [("command_id_reused",)]
    assert world.redis.xlen(STREAM) == 1


def test_a_stream_that_begins_after_what_the_database_knows_shows_that_something_is_lost(
    world: World, run: Run
) -> None:
    copy = world.copy_database()
    world.say(20)
    world.redis.xtrim(STREAM, maxlen=3, approximate=False)
    world.restore_database(copy)
    done = run("reconcile")
    assert done.code == 1
    assert "--anew" in done.error


def test_rows_of_another_cluster_come_to_stand_at_the_beginning_of_the_feed(
    world: World, run: Run, load: Callable[[str], None], engine: Engine
) -> None:
    world.service.handle([message(ENROLL, 1, [10]), message(ENROLL, 2, [10])])
    load("UPDATE commands SET position = 1 << 40; UPDATE epoch SET cluster = cluster + 1")
    repaired(run)
    with engine.connect() as connection:
        assert len(feed.page(connection, None, rows=10).events) == 2
