"""Celery, tuned statements; with the prefetch that its optimisation guide advises for short tasks."""

import tuned
from base import app, send

app.conf.worker_prefetch_multiplier = 64


@app.task(name="enroll")
def enroll(command_id, student_id, course_ids):
    tuned.enroll(command_id, student_id, course_ids)


if __name__ == "__main__":
    send(enroll)
