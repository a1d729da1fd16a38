"""The work of one command in the fewest round trips: one prepared statement, which is its own transaction, one XADD."""

import os
from functools import cache

import psycopg
from redis import Redis
from tuned_common import STATEMENT, STREAM, event


@cache
def database():
    return psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True, prepare_threshold=1)


@cache
def events():
    return Redis.from_url(os.environ["BENCH_REDIS_URL"])


def enroll(command_id, student_id, course_ids, connection=None):
    """Apply one command; a repeat does nothing."""
    row = (
        (connection or database())
        .execute(STATEMENT, {"id": command_id, "student": student_id, "courses": course_ids})
        .fetchone()
    )
    if row is not None:
        events().xadd(STREAM, {"event": event(command_id, student_id, course_ids, row[0])})
