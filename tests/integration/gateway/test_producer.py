"""How commands that requests send at one moment leave: together, and each request is told of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from enrollment.client import BrokerAway
from enrollment.client.producer import outgoing
from enrollment.client.redis_list import in_resp
from enrollment.commands import Enroll
from enrollment.names import QUEUE
from gateway import broker_line
from gateway import producer as gateway_producer
from gateway.broker_line import BrokerLine
from gateway.producer import CommandProducer
from worker.local.redis import Redis
from worker.local.server import free_port

COMMANDS = [Enroll(command_id=uuid4(), student_id=number, course_ids=(10,)) for number in range(1, 6)]
MESSAGE = outgoing(COMMANDS[:1])


def test_what_is_sent_at_one_moment_is_on_the_queue_in_its_order_after_one_round_trip(
    redis_url: str, redis_client: Any
) -> None:
    async def send() -> None:
        producer = CommandProducer(redis_url)
        await asyncio.gather(*(producer.send([command]) for command in COMMANDS))
        producer.close()

    redis_client.config_resetstat()
    asyncio.run(send())
    assert redis_client.info("commandstats")["cmdstat_lpush"]["calls"] == 1
    raw = redis_client.lrange(QUEUE, 0, -1)
    assert [str(command.command_id) in entry for command, entry in zip(COMMANDS, reversed(raw), strict=True)] == [
        True
    ] * len(COMMANDS)


def test_each_request_is_told_of_its_own_commands_that_the_broker_may_have() -> None:
    async def send() -> list[tuple[UUID, ...]]:
        producer = CommandProducer(f"redis://127.0.0.1:{free_port()}")
        answers = await asyncio.gather(*(producer.send([it]) for it in COMMANDS), return_exceptions=True)
        producer.close()
        return [answer.command_ids for answer in answers if isinstance(answer, BrokerAway)]

    assert asyncio.run(send()) == [(command.command_id,) for command in COMMANDS]


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[CommandProducer]:
    """Give a producer whose connection is up: it has sent the first command."""
    producer = CommandProducer(redis_url)
    await producer.send(COMMANDS[:1])
    try:
        yield producer
    finally:
        producer.close()


def on_queue(redis_client: Any) -> list[int]:
    """Return which of COMMANDS are on the queue, in the order in which they came."""
    entries = reversed(redis_client.lrange(QUEUE, 0, -1))
    return [number for entry in entries for number, it in enumerate(COMMANDS) if str(it.command_id) in entry]


def test_what_follows_the_first_command_leaves_without_a_thread(redis_url: str, redis_client: Any) -> None:
    async def send() -> None:
        async with connected(redis_url) as producer:
            producer._threads.shutdown()
            connections = len(redis_client.client_list())
            first = asyncio.create_task(producer.send(COMMANDS[1:2]))
            await asyncio.sleep(0.0001)
            await asyncio.gather(first, *(producer.send([it]) for it in COMMANDS[2:]))
            assert len(redis_client.client_list()) == connections

    asyncio.run(send())
    assert on_queue(redis_client) == [0, 1, 2, 3, 4]


def test_a_redis_that_was_started_again_gets_the_next_command(redis: Redis, redis_url: str, redis_client: Any) -> None:
    async def send() -> None:
        async with connected(redis_url) as producer:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
            await producer.send(COMMANDS[1:2])
            await producer.send(COMMANDS[2:3])
            assert producer._line is not None

    asyncio.run(send())
    redis_client.connection_pool.disconnect()  # its connection is to the one that was killed
    assert on_queue(redis_client)[-2:] == [1, 2]


def test_a_redis_that_refuses_is_an_error_that_says_why(redis_url: str, redis_client: Any) -> None:
    async def send() -> None:
        async with connected(redis_url) as producer:
            redis_client.config_set("maxmemory", "1")
            with pytest.raises(BrokerAway, match="command not allowed when used memory") as refused:
                await producer.send(COMMANDS[1:2])
            assert refused.value.command_ids == (COMMANDS[1].command_id,)
            redis_client.config_set("maxmemory", "0")
            await producer.send(COMMANDS[2:3])

    asyncio.run(send())
    assert on_queue(redis_client) == [0, 2]


def test_a_redis_that_does_not_answer_is_an_error_in_time(
    redis_url: str, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_producer, "_ANSWER", 0.2)

    async def send() -> None:
        async with connected(redis_url) as producer:
            redis_client.client_pause(1000)
            with pytest.raises(BrokerAway, match="no answer") as unanswered:
                await producer.send(COMMANDS[1:2])
            assert unanswered.value.command_ids == (COMMANDS[1].command_id,)
            await producer.send(COMMANDS[2:3])

    asyncio.run(send())
    assert on_queue(redis_client)[-1] == 2


def test_what_is_no_answer_to_a_command_does_not_confirm_one(redis_url: str, redis_client: Any) -> None:
    async def send() -> None:
        async with connected(redis_url) as producer:
            line = cast(BrokerLine, producer._line)
            redis_client.client_pause(500, all=False)
            line._transport.write(in_resp([b"SUBSCRIBE", b"a"]))  # type: ignore[union-attr]  # ends with a number
            sent = [asyncio.create_task(line.publish([MESSAGE])) for _ in range(6)]
            assert not any(await asyncio.gather(*sent))

    asyncio.run(send())


def test_a_connection_that_was_idle_for_long_is_not_relied_on(
    redis_url: str, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send() -> None:
        async with connected(redis_url) as producer:
            idle = producer._line
            monkeypatch.setattr(broker_line, "_IDLE", 0)
            await producer.send(COMMANDS[1:2])
            assert producer._line is not idle

    asyncio.run(send())
    assert on_queue(redis_client) == [0, 1]


def test_a_redis_with_replicas_is_waited_for_in_a_thread(redis_url: str, redis_client: Any) -> None:
    async def send() -> None:
        async with connected(f"{redis_url}?replicas=0") as producer:
            assert producer._line is not None
        producer = CommandProducer(f"{redis_url}?replicas=1")
        with pytest.raises(BrokerAway):  # there is none
            await producer.send(COMMANDS[1:2])
        assert producer._line is None
        producer.close()

    asyncio.run(send())
