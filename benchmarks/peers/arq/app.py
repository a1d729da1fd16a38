"""arq; two processes of ten jobs each."""

import asyncio
import os

import tuned_async
from arq import create_pool
from arq.connections import RedisSettings
from tuned_common import commands

REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])


async def enroll(_context, command_id, student_id, course_ids):
    await tuned_async.enroll(command_id, student_id, course_ids)


async def start(_context):
    await tuned_async.open_pool()


class WorkerSettings:
    functions = (enroll,)
    redis_settings = REDIS
    on_startup = start
    max_jobs = 10
    poll_delay = 0.05
    keep_result = 0


async def send():
    pool = await create_pool(REDIS)
    for command in commands():
        await pool.enqueue_job("enroll", *command)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(send())
