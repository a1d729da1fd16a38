"""The whole thing as an outsider meets it: a real worker and beat, the queue, the stream and the database."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from redis import Redis

from tests.eventually import eventually
from tests.root import ROOT
from tests.tools import do_without, require_tool
from worker.local.stack import Stack

STREAM = "enrollment.events"
COURSES = range(101, 121)
UNKNOWN = 999_999
INSTALL = 30.0  # seconds that npm is given

_students = count(1000)


@dataclass
class Outside:
    """What a foreign system has: a Redis connection, and read access to the database."""

    stack: Stack
    redis: Redis = field(init=False)
    database: psycopg.Connection[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.redis = Redis.from_url(self.stack.broker_url, decode_responses=True)
        self.database = psycopg.connect(self.stack.database_url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self.redis.close()
        self.database.close()

    def new_student(self) -> int:
        """Add a student that no other test knows of."""
        student = next(_students)
        self.database.execute("INSERT INTO students (id, name) VALUES (%s, %s)", (student, f"Student {student}"))
        return student

    def send(self, task: str, *args: Any, id_: str | None = None, queue: str = "enrollment", **kwargs: Any) -> str:
        """Put a message on the queue as any Celery client would: protocol 2, built by hand. Return its id."""
        id_ = id_ or str(uuid4())
        body = [list(args), kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        self.push(envelope(id_, task, base64.b64encode(json.dumps(body).encode()).decode(), queue), queue)
        return id_

    def push(self, message: object, queue: str = "enrollment") -> None:
        self.redis.lpush(queue, message if isinstance(message, str | bytes) else json.dumps(message))

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        return self.database.execute(cast(Any, query), parameters).fetchall()

    def courses_of(self, student: int) -> list[int]:
        found = self.rows("SELECT course_id FROM student_courses WHERE student_id = %s ORDER BY 1", student)
        return [row["course_id"] for row in found]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(entry["event"]) for _, entry in cast(Any, self.redis.xrange(STREAM))]

    def events_of(self, command_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["id"] == command_id]

    def event(self, command_id: str) -> dict[str, Any]:
        """Wait for the event of a command; make sure there is one only."""
        [event] = eventually(lambda: [event for event in self.events() if event["id"] == command_id])
        return event

    def dead_letter(self, command_id: str) -> dict[str, Any]:
        [row] = eventually(lambda: self.rows("SELECT * FROM dead_letters WHERE command_id = %s", command_id))
        return row

    def drained(self) -> bool:
        """Tell whether nothing waits and nothing is under way."""
        return (
            not any(self.redis.exists(key) for key in ("enrollment", "enrollment.bulk", "unacked", "unacked_index"))
            and not self.rows("SELECT FROM outbox")
            and not self.rows("SELECT FROM deferred_commands")
        )


def envelope(id_: str, task: str, body: str, queue: str = "enrollment") -> dict[str, Any]:
    """Return a message as kombu puts it into a Redis list (virtual transport, Celery protocol 2)."""
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "js", "task": task, "id": id_, "root_id": id_, "parent_id": None, "group": None},
        "properties": {
            "correlation_id": id_,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


@pytest.fixture(scope="session")
def stack(server_folder: Path) -> Iterator[Stack]:
    variables = {"FLOWER_UNAUTHENTICATED_API": "true"}
    with Stack(server_folder / "stack", durable=False, flower=True, variables=variables) as running:
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            connection.execute("INSERT INTO courses (id, code) SELECT g, 'C' || g FROM generate_series(101, 120) g")
        yield running


@pytest.fixture
def outside(stack: Stack) -> Iterator[Outside]:
    outside = Outside(stack)
    yield outside
    outside.close()


@pytest.fixture(scope="session")
def node(server_folder: Path) -> Path:
    """Give the example with its packages; they are fetched once, within seconds, or the tests are skipped."""
    require_tool("node", "nodejs")
    require_tool("npm")
    folder = server_folder / "node"
    shutil.copytree(ROOT / "examples" / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    cache = Path(tempfile.gettempdir()) / f"enrollment-npm-{os.getuid()}"
    install = ["npm", "ci", "--silent", "--prefer-offline", "--cache", str(cache)]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=INSTALL, check=False)
    except subprocess.TimeoutExpired:
        do_without(f"npm did not bring the packages within {INSTALL:.0f} s")
    if done.returncode:
        do_without(f"npm could not bring the packages: {done.stderr.strip()[-200:]}")
    return folder
