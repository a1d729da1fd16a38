"""taskiq on a Redis Stream; two processes."""

import asyncio
import os

import tuned_async
from taskiq import TaskiqEvents
from taskiq_redis import RedisStreamBroker
from tuned_common import commands

broker = RedisStreamBroker(os.environ["BENCH_REDIS_URL"])


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(_state):
    await tuned_async.open_pool()


@broker.task
async def enroll(command_id, student_id, course_ids):
    await tuned_async.enroll(command_id, student_id, course_ids)


async def send():
    await broker.startup()
    for command in commands():
        await enroll.kiq(*command)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send())
