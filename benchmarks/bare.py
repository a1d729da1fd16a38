"""A route as an application would have it that asked PostgreSQL itself: FastAPI and psycopg, and nothing around them.

One connection, asked within the event loop: that holds up everyone else, and nothing is faster.
"""

import os
from typing import Any

import psycopg
from fastapi import FastAPI
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from models.queries import CourseRow, lookups

app = FastAPI()
connection = psycopg.connect(os.environ["ENROLLMENT_DATABASE_URL"], autocommit=True)  # noqa: TID251 - as an application
DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]
STATEMENT: Any = str(lookups._COURSES_OF.compile(dialect=DIALECT))  # noqa: SLF001 - the same statement


@app.get("/students/{student_id}/courses")
async def courses_of(student_id: int) -> dict[str, object]:
    rows = connection.execute(STATEMENT, {"id": student_id}).fetchall()
    return {"student_id": student_id, "courses": [CourseRow._make(row)._asdict() for row in rows]}
