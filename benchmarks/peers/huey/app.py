"""Huey; four worker processes."""

import os

import tuned
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS_URL"], results=False)


@huey.task()
def enroll(command_id, student_id, course_ids):
    tuned.enroll(command_id, student_id, course_ids)
