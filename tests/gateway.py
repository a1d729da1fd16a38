"""A gateway for the tests: real HTTP on a port of its own, a real worker, and servers that other tests leave alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis as RedisClient
from sqlalchemy import Engine, NullPool, create_engine, text

from gateway.app import create_app
from gateway.server import Server
from tests.eventually import eventually
from tests.root import ROOT
from worker.local.postgres import Postgres
from worker.local.process import Child
from worker.local.redis import Redis
from worker.local.server import free_port
from worker.local.stack import environment
from worker.settings import Settings

STUDENTS = 400  # 1 to 400, without courses
COURSES = range(101, 121)


@dataclass
class Backend:
    """What a gateway stands on. Tests that stop the worker or Redis start it again."""

    database_url: str
    redis: Redis
    worker: Child
    engine: Engine
    _students: Iterator[int]

    def settings(self, **said: Any) -> Settings:
        url = SecretStr(self.redis.url)
        return Settings(database_url=SecretStr(self.database_url), broker_url=url, gateway_rate=0).model_copy(
            update=said
        )

    def variables(self) -> dict[str, str]:
        return {"ENROLLMENT_DATABASE_URL": self.database_url, "ENROLLMENT_BROKER_URL": self.redis.url}

    def new_student(self) -> int:
        """Give a student that no other test knows of."""
        return next(self._students)

    def dead_letters(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(text("SELECT code FROM dead_letters ORDER BY id")))

    def start_worker(self) -> None:
        """Start the worker, if it does not run, and wait until it takes commands."""
        seen = self.worker.log.stat().st_size if self.worker.log.exists() else 0
        if not self.worker.running:
            self.worker.start()
            eventually(lambda: b" ready." in self.worker.log.read_bytes()[seen:])

    def client(self) -> RedisClient:
        return RedisClient.from_url(self.redis.url, decode_responses=True)


@pytest.fixture(scope="session")
def backend(server_folder: Path, session_postgres: Postgres, template_database: str) -> Iterator[Backend]:
    database_url = session_postgres.create_database("gateway", template_database)
    # No pool: between two tests another one may have restarted the server.
    engine = create_engine(database_url.replace("://", "+psycopg://", 1), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO students (id, name) SELECT g, 'S' || g FROM generate_series(1, {STUDENTS}) g")
        )
        connection.execute(text("INSERT INTO courses (id, code) SELECT g, 'C' || g FROM generate_series(101, 120) g"))
    with Redis(server_folder / "gateway-redis", settings={"appendonly": "yes", "appendfsync": "no"}) as redis:
        variables = {"ENROLLMENT_DATABASE_URL": database_url, "ENROLLMENT_BROKER_URL": redis.url}
        worker = Child(
            name="gateway worker",
            command=[str(ROOT / ".venv/bin/celery"), "-A", "worker", "worker"],
            log=server_folder / "gateway-worker.log",
            env=environment(variables),
            cwd=ROOT,
        )
        it = Backend(database_url, redis, worker, engine, iter(range(1, STUDENTS)))
        it.start_worker()
        yield it
        worker.kill()
        engine.dispose()


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Serve HTTP in a thread; give the address."""
    port = free_port()
    server = Server(create_app(settings), host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def gateway_url(backend: Backend) -> Iterator[str]:
    """Give the address of a gateway without keys and without a limit to the rate."""
    with served(backend.settings()) as url:
        yield url


@pytest.fixture
def http(gateway_url: str, backend: Backend) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway_url, timeout=20) as client:
        yield client


def ids(answer: httpx.Response) -> list[int]:
    return [course["id"] for course in answer.json()["courses"]]


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:enrollment:problem:{code}"
    assert problem["detail"].endswith(".")
    return problem
