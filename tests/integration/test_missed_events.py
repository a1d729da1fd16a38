"""What a group missed on the stream, which its members read from the change feed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from enrollment.consumer import EventsMissed, Feed, GroupConsumer
from enrollment.copy import follow
from enrollment.events import Event
from enrollment.names import ENROLL, UNENROLL
from enrollment.state import StudentState
from tests.gateway import served
from tests.integration.conftest import STREAM, message
from worker.service import Service
from worker.settings import Settings

Member = Callable[..., GroupConsumer]
Rows = Callable[..., list[tuple[Any, ...]]]
DEAD = 0.02  # seconds


class KilledError(BaseException):
    """As by a signal: nothing handles it."""


@pytest.fixture
def feed(database_url: str, redis_url: str) -> Iterator[Feed]:
    with served(Settings.model_validate({"database_url": database_url, "broker_url": redis_url})) as url:
        yield Feed(url)


@pytest.fixture
def member(redis_url: str) -> Iterator[Member]:
    """Give a function that makes a member of a group; a dead one is given up after 20 ms."""
    with ExitStack() as stack:

        def make(name: str, group: str = "library", **options: Any) -> GroupConsumer:
            options = {"idle": DEAD, "wait": 0.01, "start": "$", **options}
            return stack.enter_context(closing(GroupConsumer(redis_url, group=group, name=name, **options)))

        yield make


def tell(service: Service, redis: Redis, *students: int) -> list[str]:
    """Have commands applied; return their events as they are on the stream."""
    kinds = (ENROLL, ENROLL, UNENROLL)
    service.handle([message(kinds[n % 3], student, [10 + n % 2]) for n, student in enumerate(students)])
    entries: Any = redis.xrevrange(STREAM, count=len(students))
    return [fields["event"] for _, fields in reversed(entries)]


def shorten(redis: Redis) -> None:
    redis.xtrim(STREAM, maxlen=1, approximate=False)


def drained(consumer: GroupConsumer) -> list[str]:
    """Read and acknowledge until nothing comes, also of what the dead held."""
    found: list[str] = []
    quiet = 0
    while quiet < 2:
        batch = consumer.read()
        found += [entry.text for entry in batch.entries]
        batch.acknowledge()
        quiet = 0 if batch.entries else quiet + 1
        if quiet == 1:
            time.sleep(DEAD * 1.5)
    return found


def die_after(monkeypatch: pytest.MonkeyPatch, commands: int) -> None:
    """End the reader when Redis has done that many of its commands, before it learns of the last one's answer."""
    turns, reader = count(1), threading.get_ident()  # the gateway of the feed lives on, in threads of this process
    execute: Callable[..., Any] = Redis.execute_command

    def until_then(self: Redis, *args: Any, **options: Any) -> Any:
        done = execute(self, *args, **options)
        if threading.get_ident() == reader and next(turns) == commands:
            raise KilledError
        return done

    monkeypatch.setattr(Redis, "execute_command", until_then)


def read_four(consumer: GroupConsumer, found: list[str]) -> None:
    for _ in range(4):
        batch = consumer.read()
        found += [entry.text for entry in batch.entries]
        batch.acknowledge()


def copied(texts: list[str]) -> list[tuple[int, int]]:
    copy: dict[int, StudentState] = {}
    for each in texts:
        follow(copy, Event.model_validate_json(each))
    return sorted((number, course) for number, it in copy.items() for course in it.pairs if it.enrolled_in(course))


def test_a_group_that_was_away_misses_nothing_wherever_a_member_is_killed(  # noqa: PLR0917 - fixtures
    feed: Feed,
    member: Member,
    service: Service,
    redis_client: Redis,
    engine: Engine,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    killed = True
    for steps in count(1):
        group = f"group-{steps}"
        early = member("early", group, count=2, feed=feed)
        early.read()
        told = tell(service, redis_client, 1, 2, 3, 3)
        early.read()  # and it dies with two of them
        shorten(redis_client)
        time.sleep(DEAD * 1.5)
        found: list[str] = []
        with monkeypatch.context() as patch:
            die_after(patch, steps)
            try:
                read_four(member("victim", group, count=3, feed=feed), found)
                killed = False
            except KilledError:
                pass
        time.sleep(DEAD * 1.5)
        found += drained(member("heir", group, count=3, feed=feed))
        assert set(told) <= set(found)
        assert redis_client.xpending(STREAM, group)["pending"] == 0
        assert not redis_client.keys("*:missed:*")
        seen += found
        if not killed:
            break
        with engine.begin() as connection:  # so that the feed is not read from the first round on
            connection.execute(text("UPDATE commands SET processed_at = processed_at - interval '1 day'"))
    assert steps > 12
    assert copied(seen) == rows("student_id, course_id", "student_courses")


def test_one_member_reads_the_feed_while_another_goes_on_with_the_stream(
    feed: Feed, member: Member, service: Service, redis_client: Redis
) -> None:
    reading, other = (member(name, count=2, feed=feed, idle=60) for name in "ab")
    other.read()
    told = [text for student in range(1, 6) for text in tell(service, redis_client, student)]
    shorten(redis_client)
    first = reading.read()
    first.acknowledge()
    assert [entry.text for entry in first.entries] == told[:2]
    assert not other.read().entries  # the feed is the first member's, and the last entry, which came with the gap
    last = reading.read()
    last.acknowledge()
    assert [entry.text for entry in last.entries] == told[4:]
    assert [entry.text for entry in reading.read().entries] == told[2:4]  # and here it is killed
    new = tell(service, redis_client, 1, 2)
    assert [entry.text for entry in other.read().entries] == new
    again = drained(member("a", count=2, feed=feed, idle=60))  # it is started anew
    assert set(told[2:4]) <= set(again)
    assert not set(told[:2]) & set(again)


def test_a_group_without_a_feed_is_told_of_what_is_missing_until_who_was_told_reads_on(
    member: Member, service: Service, redis_client: Redis
) -> None:
    member("a").read()
    tell(service, redis_client, 1, 2, 3)
    shorten(redis_client)
    members = [member("a"), member("b")]
    for consumer in members:  # the first is killed before it can begin its copy anew
        time.sleep(DEAD * 1.5)
        with pytest.raises(EventsMissed, match="enrollment snapshot"):
            drained(consumer)
    drained(members[1])
    [new] = tell(service, redis_client, 4)
    assert drained(member("c")) == [new]


def test_a_group_whose_feed_does_not_reach_back_is_told(
    feed: Feed, member: Member, service: Service, redis_client: Redis, engine: Engine
) -> None:
    consumer = member("a", feed=feed, start="0")
    tell(service, redis_client, 1, 2, 3)
    shorten(redis_client)
    with engine.begin() as connection:
        connection.execute(text("UPDATE retention SET gone_to = 1"))
    with pytest.raises(EventsMissed):
        consumer.read()
    assert len(drained(consumer)) == 1  # what is left
