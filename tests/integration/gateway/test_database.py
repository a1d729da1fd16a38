"""What the gateway does when its database hangs or was restarted, and what asking for its readiness costs."""

import asyncio
from collections.abc import Iterator, Sequence
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import TimeoutError as NoAnswer

from enrollment.errors import UnknownStudent
from gateway.database import CONNECTIONS, Database
from gateway.event_listener import EventListener
from gateway.event_stream import Stream, connect
from gateway.producer import CommandProducer
from gateway.readiness import Readiness
from models.db_errors import is_outage
from models.queries import checks
from tests.eventually import eventually
from worker.local.postgres import Postgres
from worker.settings import Settings

OTHERS = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'enrollment gateway'")


@pytest.fixture
def url(database_url: str) -> str:
    return Settings(database_url=SecretStr(database_url)).require_database_url()


@pytest.fixture
def hung(engine: Engine) -> Iterator[Any]:
    """Give a question that is not answered before the end of the test."""

    def ask(connection: Connection) -> Any:
        return connection.scalar(text("SELECT pg_sleep(60)"))

    yield ask
    with engine.connect() as connection:
        connection.execute(OTHERS)


def test_connections_that_went_stale_are_replaced(url: str, engine: Engine, postgres: Postgres) -> None:
    async def ask() -> None:
        read = Database.connect(url)

        async def everyone() -> list[bool]:
            answers = [read(_slowly) for _ in range(CONNECTIONS)]  # so that each has a connection of its own
            return [answer == 1 for answer in await asyncio.gather(*answers)]

        assert all(await everyone())
        with engine.connect() as connection:
            connection.execute(OTHERS)
        assert all(await everyone())
        postgres.kill()
        postgres.start()
        assert all(await everyone())
        read.close()

    asyncio.run(ask())


def test_courses_that_are_asked_for_at_one_moment_are_one_statement(url: str, catalog: None) -> None:
    asked: list[Sequence[int]] = []

    async def ask() -> None:
        read = Database.connect(url)
        together, answer = read._courses_of, read._courses_of._ask

        def counted(student_ids: Sequence[int]) -> Any:
            asked.append(student_ids)
            return answer(student_ids)

        together._ask = counted
        found = await asyncio.gather(*(read.courses_of(id_) for id_ in (1, 404, 2, 1)), return_exceptions=True)
        assert [found[0], found[2], found[3]] == [[], [], []]
        assert isinstance(found[1], UnknownStudent)
        read.close()

    asyncio.run(ask())
    assert asked == [[1, 404, 2, 1]]


async def _watching(read: Database) -> Any:
    """Return the first session that the event loop watches; a first answer has one opened."""
    assert await read.courses_of(1) == []
    await asyncio.to_thread(eventually, lambda: read._sessions._free)
    return read._sessions._free[0]


def test_courses_are_asked_for_without_a_thread_once_a_session_is_there(url: str, catalog: None) -> None:
    async def ask() -> None:
        read = Database.connect(url)
        await _watching(read)
        read._threads.shutdown()
        assert [await read.courses_of(id_) for id_ in (1, 2)] == [[], []]
        with pytest.raises(UnknownStudent):
            await read.courses_of(404)
        read.close()

    asyncio.run(ask())


def test_a_session_that_was_ended_while_nobody_asked_is_replaced(url: str, engine: Engine, catalog: None) -> None:
    async def ask() -> None:
        read = Database.connect(url)
        ended = await _watching(read)
        with engine.connect() as connection:
            connection.execute(OTHERS)
        assert await read.courses_of(1) == []
        await asyncio.to_thread(eventually, lambda: not ended.is_up)
        assert await _watching(read) is not ended
        read.close()

    asyncio.run(ask())


def test_sessions_are_left_together_where_one_is_not_answered(url: str, engine: Engine, catalog: None) -> None:
    async def ask() -> None:
        read = Database.connect(url, patience=0.5)
        with read._sessions.borrowed():
            one = await _watching(read)
        with read._sessions.borrowed():
            other = await _watching(read)
        assert (one.is_up, other.is_up) == (True, True)
        assert one is not other
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE students"))
            with pytest.raises(NoAnswer):
                await read.courses_of(1)
        assert (one.is_up, other.is_up) == (False, False)
        read.close()

    asyncio.run(ask())


def test_courses_that_a_database_does_not_tell_are_an_outage_in_time(url: str, engine: Engine, catalog: None) -> None:
    async def ask() -> None:
        read = Database.connect(url, patience=0.5)
        hung = await _watching(read)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE students"))
            with pytest.raises(NoAnswer):
                await read.courses_of(1)
        assert not hung.is_up
        assert await read.courses_of(1) == []
        read.close()

    asyncio.run(ask())


def test_who_gives_up_does_not_keep_the_others_from_their_answers(url: str, catalog: None) -> None:
    async def ask() -> None:
        read = Database.connect(url)
        gone, other = asyncio.create_task(read.courses_of(1)), asyncio.create_task(read.courses_of(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await other == []
        read.close()

    asyncio.run(ask())


def test_a_database_that_hangs_is_an_outage_in_time_and_holds_no_more_threads_than_connections(
    url: str, hung: Any
) -> None:
    async def ask() -> None:
        read = Database.connect(url, connections=2, patience=0.5)
        answers = await asyncio.gather(*(read(hung) for _ in range(6)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [NoAnswer] * 6
        assert is_outage(cast("BaseException", answers[0]))
        assert len(read._threads._threads) == 2
        read.close()

    asyncio.run(ask())


def test_readiness_is_asked_once_whoever_asks_and_waits_for_no_one(url: str, redis_url: str, hung: Any) -> None:
    now = 0.0
    asked = 0

    async def ask() -> None:
        nonlocal now, asked
        probe, producer = Database.connect(url, connections=1), CommandProducer(redis_url)
        stream = Stream(connect(redis_url), "events")
        live = cast("EventListener", SimpleNamespace(live=True, stream=stream))

        def question(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return probe(*arguments)

        readiness = Readiness(cast("Database", question), producer, live, now=lambda: now)
        written = Event()
        writers = [producer._threads.submit(written.wait) for _ in range(4)]  # as many as there may be
        assert {await readiness.parts() for _ in range(20)} == {("ok", "ok", "ok")}
        assert set(await asyncio.gather(*(readiness.parts() for _ in range(20)))) == {("ok", "ok", "ok")}
        assert asked == 1
        now = 1.0
        await asyncio.gather(*(readiness.parts() for _ in range(20)))
        assert asked == 2
        held = asyncio.create_task(probe(hung))
        await asyncio.sleep(0)
        now = 2.0
        assert (await readiness.parts()).away == ["database"]
        held.cancel()
        assert not any(writer.done() for writer in writers)
        written.set()
        producer.close()
        await stream._client.aclose()
        probe.close()

    asyncio.run(ask())


def test_the_clock_is_the_databases(engine: Engine) -> None:
    with engine.connect() as connection:
        earlier, later = checks.clock(connection), checks.clock(connection)
    assert earlier < later
    assert earlier.tzinfo is not None


def _slowly(connection: Connection) -> Any:
    connection.execute(text("SELECT pg_sleep(0.1)"))
    return connection.scalar(text("SELECT 1"))
