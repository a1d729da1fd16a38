"""Producers, a worker and both stores, of which copies can be made and put in their place."""

import random
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row
from redis import Redis
from sqlalchemy import Engine

from tasks.messages import Message
from tests.acceptance.faults import commands
from tests.acceptance.faults.commands import COURSES, STUDENTS, Generator
from tests.acceptance.faults.oracle import Seen, Verdict, as_events, judge
from tests.acceptance.faults.sent_log import SentLog
from tests.integration.conftest import STREAM
from worker.local.postgres import Postgres
from worker.service import Service


@dataclass
class World:
    """Producers, a worker and both stores; copies of these can be made, and put in their place."""

    postgres: Postgres
    redis: Redis
    url: str
    engines: list[Engine]
    service: Service
    sent_log: SentLog = field(default_factory=SentLog)
    said: list[commands.Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generator = iter(Generator(random.Random(17)))  # noqa: S311 - it is to be repeatable
        self._contents: dict[str, object] = {}
        with psycopg.connect(self.url) as connection:
            for table, ids in (("students", STUDENTS), ("courses", COURSES)):
                add = f"INSERT INTO {table} (id) SELECT unnest(%s::bigint[]) ON CONFLICT DO NOTHING"
                connection.execute(add, [list(ids)])

    def say(self, count: int) -> None:
        """Send messages that end with an event, and apply them: a restore does lose dead letters."""
        messages = [m for m in (next(self._generator) for _ in range(2 * count)) if self._has_an_event(m)][:count]
        for each in messages:
            self.sent_log.sending(each)
            self.sent_log.sent(each)
        self.said += messages
        self.deliver(messages)

    def deliver(self, messages: list[commands.Message]) -> None:
        """Apply messages, which may come again."""
        for start in range(0, len(messages), 25):
            batch = [Message(m.task, m.task_id, str(uuid4()), m.args, m.kwargs) for m in messages[start : start + 25]]
            self.service.handle(batch)

    def _has_an_event(self, message: commands.Message) -> bool:
        new = {said.command_id: said.fields for said in message.said}
        return (
            not message.markers
            and all(said.ends != commands.INVALID for said in message.said)
            and all(self._contents.setdefault(id_, fields) == fields for id_, fields in new.items())
        )

    def copy_database(self) -> str:
        """Return the name of a copy of the database as it is now."""
        name = f"copy_{uuid4().hex}"
        for engine in self.engines:
            engine.dispose()
        self.postgres.create_database(name, self.url.rpartition("/")[2])
        return name

    def restore_database(self, copy: str) -> None:
        name = self.url.rpartition("/")[2]
        for engine in self.engines:
            engine.dispose()
        self.postgres.drop_database(name)
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {copy} RENAME TO {name}")

    def copy_redis(self) -> dict[bytes, Any]:
        with self._raw() as raw:
            return {key: raw.dump(key) for key in raw.scan_iter()}

    def restore_redis(self, copy: dict[bytes, Any]) -> None:
        self.redis.flushall()
        with self._raw() as raw:
            for key, value in copy.items():
                raw.restore(key, 0, value)

    @property
    def redis_url(self) -> str:
        known = self.redis.connection_pool.connection_kwargs
        return f"redis://:{known['password']}@{known['host']}:{known['port']}/0"

    @property
    def last(self) -> str:
        """The id of the last entry of the stream."""
        info: Any = self.redis.xinfo_stream(STREAM)
        return str(info["last-generated-id"])

    def pairs(self) -> list[tuple[int, int]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT student_id, course_id FROM student_courses ORDER BY 1, 2").fetchall()

    def _raw(self) -> Redis:
        return Redis.from_url(self.redis_url)  # bytes, not texts

    def judged(self) -> Verdict:
        """Publish what is owed, and judge."""
        self.service.relay(older_than=0)
        entries: Any = self.redis.xrange(STREAM)
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            pairs = connection.execute("SELECT student_id, course_id FROM student_courses").fetchall()
            records = connection.execute("SELECT * FROM commands").fetchall()
            letters = connection.execute("SELECT * FROM dead_letters").fetchall()
        return judge(
            self.sent_log,
            Seen(
                pairs={(row["student_id"], row["course_id"]) for row in pairs},
                commands={str(row["command_id"]): row for row in records},
                events=as_events(fields for _, fields in entries),
                letters=letters,
            ),
        )
