"""Dramatiq; two processes of four threads, a database connection per thread."""

import os
import threading

import dramatiq
import psycopg
import tuned
from dramatiq.brokers.redis import RedisBroker
from tuned_common import commands

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS_URL"]))
local = threading.local()


@dramatiq.actor
def enroll(command_id, student_id, course_ids):
    if not hasattr(local, "database"):
        local.database = psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True, prepare_threshold=1)
    tuned.enroll(command_id, student_id, course_ids, local.database)


if __name__ == "__main__":
    for command in commands():
        enroll.send(*command)
