"""Arrays in binary: the server reads of them what it reads of their text."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from enrollment.commands import format_time
from models.arrays import Binary, bigints, blobs, nullable, plain, times, uuids
from models.direct import ask

MANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TIMES = st.datetimes(timezones=st.just(UTC))


@pytest.fixture
def is_read(worker_engine: Engine) -> "IsRead":
    return IsRead(worker_engine)


class IsRead:
    """Tells whether the server takes an array in binary and its text for the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, type_: str, binary: Binary, literal: str) -> bool:
        same = text(f"SELECT CAST(:binary AS {type_}[]) IS NOT DISTINCT FROM CAST(:literal AS {type_}[])")
        with self._engine.connect() as connection, connection.begin():
            return ask(connection, same, {"binary": binary, "literal": literal}).rows() == [(True,)]


@MANY
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_numbers(is_read: IsRead, values: list[int | None]) -> None:
    assert is_read("bigint", bigints(values), nullable(values))


@MANY
@given(st.lists(st.uuids()))
def test_ids(is_read: IsRead, values: list[UUID]) -> None:
    assert is_read("uuid", uuids(values), plain(values))


@MANY
@given(st.lists(st.none() | TIMES))
def test_times(is_read: IsRead, values: list[datetime | None]) -> None:
    assert is_read("timestamptz", times(values), nullable([value and format_time(value) for value in values]))


@MANY
@given(st.lists(st.binary(max_size=40)))
def test_bytes(is_read: IsRead, values: list[bytes]) -> None:
    assert is_read("bytea", blobs(values), plain([rf'"\\x{value.hex()}"' for value in values]))
