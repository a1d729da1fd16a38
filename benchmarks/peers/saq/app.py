"""SAQ; four processes of ten jobs each."""

import asyncio
import os

import tuned_async
from saq import Queue
from tuned_common import commands

queue = Queue.from_url(os.environ["BENCH_REDIS_URL"])


async def enroll(_context, *, command):
    await tuned_async.enroll(*command)


async def start(_context):
    await tuned_async.open_pool()


settings = {"queue": queue, "functions": [enroll], "concurrency": 10, "startup": start}


async def send():
    await queue.connect()
    for command in commands():
        await queue.enqueue("enroll", command=command, ttl=-1)  # no result is kept
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(send())
