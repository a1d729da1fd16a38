"""Passwords are changed in PostgreSQL, in Redis and in the files that variables name, while a worker runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from enrollment.client import Client
from tests.eventually import eventually
from tests.integration.conftest import STREAM
from tests.root import ROOT
from worker.local.process import Child
from worker.local.stack import environment

OLD, NEW = "before:@/", "after:@/%"


def with_user(url: str, user: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{quote(password, safe='')}@{rest.rpartition('@')[2]}"


def set_passwords(engine: Engine, redis: Any, password: str) -> None:
    """Give the worker's users this password and no other, and end the connections they have."""
    redis.acl_setuser("rotating", enabled=True, reset=True, passwords=[f"+{password}"], keys=["*"], channels=["*"],
                      categories=["+@all"])  # fmt: skip
    redis.execute_command("CLIENT", "KILL", "USER", "rotating")
    with engine.begin() as connection:
        connection.execute(text(f"ALTER ROLE rotating SUPERUSER LOGIN PASSWORD '{password}'"))
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'"))


@pytest.mark.usefixtures("catalog")
def test_a_worker_goes_on_with_passwords_that_were_changed_in_its_files(
    engine: Engine, database_url: str, redis_client: Redis, redis_url: str, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS rotating"))
        connection.execute(text("CREATE ROLE rotating"))
    files = {"DATABASE_URL": database_url, "BROKER_URL": redis_url}

    def write(password: str) -> None:
        for name, url in files.items():
            (tmp_path / "new").write_text(with_user(url, "rotating", password))
            (tmp_path / "new").replace(tmp_path / name)

    write(OLD)
    set_passwords(engine, redis_client, OLD)
    variables = {f"ENROLLMENT_{name}_FILE": str(tmp_path / name) for name in files}
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    worker = Child(name="worker", command=command, log=tmp_path / "log", env=environment(variables), cwd=ROOT)
    sent: list[UUID] = []
    over = Event()
    producer = Thread(target=send, args=(redis_url, sent, over))
    try:
        worker.start()
        producer.start()
        told = told_on(redis_client)
        eventually(lambda: len(told()) > 10, 60)
        set_passwords(engine, redis_client, NEW)
        refused = ("password authentication failed", "invalid username-password")
        eventually(lambda: any(it in worker.log.read_text() for it in refused))  # it cannot go on without the file
        write(NEW)
        behind = len(sent)
        eventually(lambda: len(told()) > behind, 60)
        over.set()
        producer.join()
        eventually(lambda: len(told()) >= len(sent))
        assert sorted(told()) == sorted(map(str, sent))  # each once, none lost
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM dead_letters")) == 0
        assert worker.running
    finally:
        over.set()
        producer.join()
        worker.kill()
        print(worker.log.read_text()[-6000:])  # noqa: T201 (pytest shows it when the test fails)
        redis_client.acl_deluser("rotating")


def send(url: str, sent: list[UUID], over: Event) -> None:
    with Client(url) as client:
        while not over.wait(0.01):
            sent.append(client.enroll(1 + len(sent) % 5, [10 + len(sent) % 4]))


def told_on(redis: Redis) -> Callable[[], list[str]]:
    def told() -> list[str]:
        entries: Any = redis.xrange(STREAM)
        return [json.loads(fields["event"])["id"] for _, fields in entries]

    return told
