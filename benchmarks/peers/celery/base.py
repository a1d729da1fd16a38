"""What both Celery apps have in common."""

import os

from celery import Celery
from tuned_common import commands

app = Celery("bench", broker=os.environ["BENCH_REDIS_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


def send(task):
    """Send the commands of the file on the command line, a message each."""
    for command_id, student_id, course_ids in commands():
        task.apply_async(args=(command_id, student_id, course_ids), task_id=command_id)
