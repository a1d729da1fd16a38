import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from enrollment.consumer import BEGINNING, EntryBatch, EventsMissed, GroupConsumer, Reader
from enrollment.copy import follow
from enrollment.events import Event
from enrollment.names import ENROLL, REPLACE
from enrollment.state import StudentState
from tasks.messages import Message
from tests.integration.conftest import STREAM, message
from worker.local.redis import Redis as RedisServer
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Join = Callable[..., GroupConsumer]


@pytest.fixture
def join(redis_url: str) -> Iterator[Join]:
    """Give a function that makes a member of the group `library`; a dead one's events are another's after 50 ms."""
    made: list[GroupConsumer] = []

    def make(name: str, **options: Any) -> GroupConsumer:
        made.append(GroupConsumer(redis_url, group="library", name=name, **{"idle": 0.05, "wait": 0.05, **options}))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()


@pytest.fixture
def send(service: Service) -> Callable[..., list[UUID]]:
    """Give a function that has commands applied; they return their ids."""

    def handle(*messages: Message) -> list[UUID]:
        service.handle(messages)
        return [UUID(it.task_id) for it in messages]

    return handle


Send = Callable[..., list[UUID]]


def ids(batch: EntryBatch) -> list[UUID]:
    return [event.id for event in batch.events]


def copied(events: Sequence[Event]) -> list[tuple[int, int]]:
    copy: dict[int, StudentState] = {}
    for event in events:
        follow(copy, event)
    return sorted((number, course) for number, it in copy.items() for course in it.pairs if it.enrolled_in(course))


# --- a group


def test_a_new_group_gets_every_event_from_the_first_on(join: Join, send: Send) -> None:
    sent = send(message(ENROLL, 1, [10]), message(ENROLL, 2, [11]))
    batch = join("a").read()
    assert ids(batch) == sent
    batch.acknowledge()


def test_a_group_that_begins_now_gets_new_events_alone(join: Join, send: Send) -> None:
    send(message(ENROLL, 1, [10]))
    consumer = join("a", start="$")
    assert not consumer.read().entries
    assert send(message(ENROLL, 2, [11])) == ids(consumer.read())


def test_members_share_the_events(join: Join, send: Send) -> None:
    sent = send(*(message(ENROLL, 1, [10]) for _ in range(4)))
    one, other = join("a", count=2, idle=60).read(), join("b", count=2, idle=60).read()
    assert ids(one) + ids(other) == sent


def test_what_was_not_acknowledged_comes_again_after_a_crash_and_first(join: Join, send: Send) -> None:
    _, second, third = send(*(message(ENROLL, 1, [10]) for _ in range(3)))
    before = join("a", count=1)
    before.read().acknowledge()
    assert ids(before.read()) == [second]  # and here it is killed
    after = join("a", idle=60)
    assert ids(after.read()) == [second]
    assert ids(after.read()) == [third]


def test_what_a_dead_member_held_is_anothers(join: Join, send: Send) -> None:
    sent = send(message(ENROLL, 1, [10]), message(ENROLL, 2, [11]))
    join("a").read()
    time.sleep(0.06)
    heir = join("b")
    batch = heir.read()
    assert ids(batch) == sent
    batch.acknowledge()
    assert not join("c").read().entries


def test_an_acknowledged_batch_does_not_come_again(join: Join, send: Send, redis_client: Redis) -> None:
    send(message(ENROLL, 1, [10]))
    join("a").read().acknowledge()
    time.sleep(0.06)
    assert not join("a").read().entries
    assert not join("b").read().entries


def test_entries_that_are_no_events_are_told_and_stop_nothing(join: Join, send: Send, redis_client: Redis) -> None:
    broken: list[dict[Any, Any]] = [{"event": "{"}, {"event": '{"type": "enrollment.applied.v9"}'}, {"other": "1"}]
    for fields in broken:
        redis_client.xadd(STREAM, fields)
    sent = send(message(ENROLL, 1, [10]))
    batch = join("a").read()
    assert [entry.text for entry in batch.unreadable] == ["{", '{"type": "enrollment.applied.v9"}', ""]
    assert ids(batch) == sent
    batch.acknowledge()
    assert not join("a").read().entries


def test_trimming_that_overtook_the_group_is_told_once(join: Join, send: Send, redis_client: Redis) -> None:
    *_, last = send(*(message(ENROLL, 1, [10]) for _ in range(3)))
    redis_client.xtrim(STREAM, maxlen=1, approximate=False)
    consumer = join("a")
    with pytest.raises(EventsMissed, match="Begin the copy anew"):
        consumer.read()
    assert ids(consumer.read()) == [last]


@pytest.mark.parametrize("heir", ["a", "b"])
def test_trimming_of_what_a_member_held_is_told_once(join: Join, send: Send, redis_client: Redis, heir: str) -> None:
    *_, last = send(*(message(ENROLL, 1, [10]) for _ in range(3)))
    join("a").read()
    redis_client.xtrim(STREAM, maxlen=1, approximate=False)
    time.sleep(0.06)
    consumer = join(heir)
    with pytest.raises(EventsMissed):
        consumer.read()
    assert ids(consumer.read()) == [last]


def test_a_stream_that_was_deleted_is_told_and_its_successor_is_read(
    join: Join, send: Send, redis_client: Redis
) -> None:
    consumer = join("a")
    assert not consumer.read().entries
    redis_client.delete(STREAM)
    with pytest.raises(EventsMissed):
        consumer.read()
    assert send(message(ENROLL, 1, [10])) == ids(consumer.read())


def test_a_member_outlives_a_crash_of_redis(join: Join, send: Send, redis: RedisServer) -> None:
    consumer = join("a")
    batches = iter(consumer)
    sent = send(message(ENROLL, 1, [10]))
    assert ids(next(batches)) == sent
    redis.kill()
    redis.start()
    assert ids(next(batches)) == sent  # not acknowledged
    next(batches).acknowledge()
    assert send(message(ENROLL, 2, [10])) == ids(next(batches))


def test_a_copy_by_several_members_that_die_converges(join: Join, send: Send, rows: Rows) -> None:
    hours = [f"2026-01-31T{hour:02}:00:00Z" for hour in (3, 1, 2, 5, 4)]
    send(*(message(ENROLL, 1, [10, 11 + n % 3], issued_at=at) for n, at in enumerate(hours)))
    send(*(message(REPLACE, 1, [12 + n % 3], issued_at=at) for n, at in enumerate(hours[:4])))
    seen: list[Event] = []
    turns = count()
    while len({event.id for event in seen}) < 9:
        number = next(turns)
        batch = join(f"member-{number % 3}", count=2).read()
        seen += batch.events
        time.sleep(0.03)
        if number % 2:
            batch.acknowledge()
    assert copied(seen) == rows("student_id, course_id", "student_courses")


# --- a position of one's own


def test_a_reader_goes_on_from_the_position_it_kept(redis_url: str, send: Send) -> None:
    first, second = send(message(ENROLL, 1, [10]), message(ENROLL, 2, [11]))
    with Reader(redis_url) as reader:
        assert [it.event and it.event.id for it in reader.read(count=1)] == [first]
    with Reader(redis_url, position=reader.position, wait=0.05) as again:
        assert [it.event and it.event.id for it in again.read()] == [second]
        assert again.read() == []


def test_a_reader_is_told_of_a_gap_and_may_go_on(redis_url: str, send: Send, redis_client: Redis) -> None:
    *_, last = send(*(message(ENROLL, 1, [10]) for _ in range(3)))
    with Reader(redis_url) as reader:
        reader.read(count=1)
        redis_client.xtrim(STREAM, maxlen=1, approximate=False)
        with pytest.raises(EventsMissed):
            reader.read()
        assert [it.event and it.event.id for it in reader.read()] == [last]


def test_a_reader_is_told_that_the_stream_is_another(redis_url: str, send: Send, redis_client: Redis) -> None:
    send(message(ENROLL, 1, [10]))
    with Reader(redis_url, wait=0.05) as reader:
        reader.read()
        redis_client.delete(STREAM)
        with pytest.raises(EventsMissed):
            reader.read()


def test_a_reader_at_the_end_of_a_trimmed_stream_missed_nothing(
    redis_url: str, send: Send, redis_client: Redis
) -> None:
    send(*(message(ENROLL, 1, [10]) for _ in range(3)))
    with Reader(redis_url, wait=0.05) as reader:
        reader.read()
        redis_client.xtrim(STREAM, maxlen=1, approximate=False)
        assert reader.read() == []


def test_a_copy_of_loaded_rows_begins_with_the_stream_where_that_is_complete(redis_url: str, send: Send) -> None:
    send(message(ENROLL, 1, [10]))
    with Reader(redis_url, position="7-7") as reader:
        assert reader.begin(datetime.now(UTC)) == BEGINNING
        assert len(reader.read()) == 1


def test_a_copy_of_loaded_rows_begins_an_hour_earlier(redis_url: str, redis_client: Redis) -> None:
    minutes = [int((datetime.now(UTC) - timedelta(minutes=n)).timestamp() * 1000) for n in (90, 61, 59, 0)]
    ids = [str(redis_client.xadd(STREAM, {"event": "{}"}, id=f"{at}-0")) for at in minutes]
    redis_client.xtrim(STREAM, maxlen=3, approximate=False)
    with Reader(redis_url) as reader:
        assert reader.begin(datetime.now(UTC)) == ids[1]
        assert [entry.id for entry in reader.read()] == ids[2:]


def test_a_copy_of_loaded_rows_begins_with_what_a_short_stream_has(redis_url: str, redis_client: Redis) -> None:
    minutes = [int((datetime.now(UTC) - timedelta(minutes=n)).timestamp() * 1000) for n in (5, 4, 3, 2)]
    ids = [str(redis_client.xadd(STREAM, {"event": "{}"}, id=f"{at}-0")) for at in minutes]
    redis_client.xtrim(STREAM, maxlen=3, approximate=False)
    with Reader(redis_url) as reader:
        assert reader.begin(datetime.now(UTC)) == ids[1]
        assert [entry.id for entry in reader.read()] == ids[2:]
        with pytest.raises(EventsMissed):
            reader.begin(datetime.now(UTC) - timedelta(minutes=4.5))


def test_bytes_that_are_no_text_are_unreadable_and_stop_nobody(join: Join, redis_url: str) -> None:
    with Redis.from_url(redis_url) as raw:
        raw.xadd(STREAM, {"event": b"\xff"})
    batch = join("a").read()
    assert batch is not None
    assert len(batch.unreadable) == 1


def test_a_group_that_is_destroyed_is_made_again(
    join: Join, redis_client: Redis, send: Callable[..., list[UUID]]
) -> None:
    consumer = join("a")
    send(message(ENROLL, 1, [10]))
    consumer.read()
    redis_client.xgroup_destroy(STREAM, "library")
    with pytest.raises(EventsMissed):
        consumer.read()
    for _ in range(2):
        consumer.read()
    assert [group["name"] for group in redis_client.xinfo_groups(STREAM)] == ["library"]
