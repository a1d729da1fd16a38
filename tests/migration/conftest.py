"""Databases in every state that a migration may meet."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.migration.steps import Database
from worker.local.postgres import Postgres


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """Give the address of a database in which there is nothing."""
    name = f"migration_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """Give a database in which there is nothing, and what to do with it."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        yield Database(empty_url, connection)
