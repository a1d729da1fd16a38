"""`tuned` for event loops: the same statement on asyncpg, the same XADD."""

import os

import asyncpg
import redis.asyncio as redis
import tuned_common

_pool = None
_events = None


async def open_pool(size=10):
    """Connect; to be called when the worker process starts."""
    global _pool, _events
    _pool = await asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"], min_size=size, max_size=size)
    _events = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])


async def enroll(command_id, student_id, course_ids):
    """Apply one command; a repeat does nothing."""
    outcome = await _pool.fetchval(tuned_common.NUMBERED, command_id, student_id, course_ids)
    if outcome is not None:
        event = tuned_common.event(command_id, student_id, course_ids, outcome)
        await _events.xadd(tuned_common.STREAM, {"event": event})
