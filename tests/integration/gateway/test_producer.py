"""How commands that requests send at one moment leave: together, and each request is told of its own."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

from enrollment.client import BrokerAway
from enrollment.commands import Enroll
from enrollment.names import QUEUE
from gateway.producer import CommandProducer
from worker.local.server import free_port

COMMANDS = [Enroll(command_id=uuid4(), student_id=number, course_ids=(10,)) for number in range(1, 6)]


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
