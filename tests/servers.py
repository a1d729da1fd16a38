"""Real servers for the tests, on ports of their own: started once, a database cloned and Redis emptied per test."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as Client
from sqlalchemy import Engine

from models.engine import make_engine
from tests.folders import new_folder
from worker.local.postgres import Postgres
from worker.local.redis import Redis
from worker.schema import upgrade

TEMPLATE = "template_enrollment"


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    folder = new_folder("enrollment-tests-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def session_postgres(server_folder: Path) -> Iterator[Postgres]:
    with Postgres(server_folder / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def session_redis(server_folder: Path) -> Iterator[Redis]:
    """Keep data through a kill of the server, but not through a power cut: that would cost every test."""
    with Redis(server_folder / "redis", settings={"appendfsync": "no"}) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(session_postgres: Postgres) -> str:
    """Give the name of a database as the migrations leave it."""
    upgrade(session_postgres.create_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def postgres(session_postgres: Postgres) -> Iterator[Postgres]:
    """Give the server itself; the test may kill and stop it, data stays."""
    yield session_postgres
    session_postgres.start()


@pytest.fixture
def redis(session_redis: Redis) -> Iterator[Redis]:
    """Give the server itself; the test may kill, stop and reconfigure it, data stays."""
    yield session_redis
    session_redis.kill()  # a fresh start has the settings it had
    session_redis.start()


@pytest.fixture
def database_url(postgres: Postgres, template_database: str) -> Iterator[str]:
    """Give the address of a migrated, empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres.create_database(name, template_database)
    postgres.start()  # the test may have left it down
    postgres.drop_database(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url.replace("://", "+psycopg://", 1), application_name="tests", pool_size=5)
    yield engine
    engine.dispose()


@pytest.fixture
def redis_url(session_redis: Redis) -> str:
    """Give the address of an empty Redis."""
    with Client.from_url(session_redis.url) as client:
        client.flushall()
    return session_redis.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Client]:
    with Client.from_url(redis_url, decode_responses=True) as client:
        yield client
