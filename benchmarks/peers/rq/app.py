"""RQ; four workers that do not fork per job."""

import os

from redis import Redis
from rq import Queue
from tuned_common import commands

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))

if __name__ == "__main__":
    queue.enqueue_many([Queue.prepare_data("tuned.enroll", command, result_ttl=0) for command in commands()])
