"""Celery, one ORM task per command; as in its first steps."""

import orm
from base import app, send


@app.task(name="enroll")
def enroll(command_id, student_id, course_ids):
    orm.enroll(command_id, student_id, course_ids)


if __name__ == "__main__":
    send(enroll)
