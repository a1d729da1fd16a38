"""Procrastinate, whose queue is PostgreSQL; two processes of ten jobs each."""

import asyncio
import os

import tuned_async
from procrastinate import App, PsycopgConnector
from tuned_common import commands

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))
connected = None


@app.task(name="enroll")
async def enroll(command_id, student_id, course_ids):
    global connected
    if connected is None:
        connected = asyncio.ensure_future(tuned_async.open_pool())
    await connected
    await tuned_async.enroll(command_id, student_id, course_ids)


async def send():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await enroll.batch_defer_async(
            *({"command_id": id_, "student_id": student, "course_ids": courses} for id_, student, courses in commands())
        )


if __name__ == "__main__":
    asyncio.run(send())
