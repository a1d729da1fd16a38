"""No framework: BRPOP, the work, the next. What is taken and not done is lost; there is nothing to be faster than."""

import json
import os
import sys

import tuned
from redis import Redis
from tuned_common import commands

QUEUE = "bench"
redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])


def work():
    while True:
        tuned.enroll(*json.loads(redis.brpop(QUEUE)[1]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        work()
    for command in commands():
        redis.lpush(QUEUE, json.dumps(command))
