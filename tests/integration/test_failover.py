"""A primary that is replaced, and one that comes back: who is written to, and what is told."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from enrollment.names import ENROLL
from gateway.database import Database
from models.db_errors import Moved, is_outage
from models.engine import WORKER, WORKER_NAME, make_engine
from models.replication import confirm_apart
from models.standby import REST, Standby
from tests.eventually import eventually
from tests.integration.conftest import message
from tests.replication import Pair
from worker.checks import _database
from worker.cli.connect import lookup
from worker.exporter import System, registry_of
from worker.publishing import Publisher
from worker.schema import upgrade
from worker.service import Service
from worker.settings import Settings

HANGING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
END_THEM = "SELECT {}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def pair(server_folder: Path) -> Iterator[Pair]:
    """Give a primary with a migrated database and its synchronous standby."""
    pair = Pair(server_folder / "pair", {})
    try:
        upgrade(pair.primary.start().create_database("pair"))
        with psycopg.connect(pair.primary.url_of("pair"), autocommit=True) as connection:
            connection.execute("INSERT INTO students (id) SELECT generate_series(1, 5)")
            connection.execute("INSERT INTO courses (id) SELECT generate_series(10, 14)")
        pair.join()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def url(pair: Pair) -> str:
    """Give an address of both, the primary first."""
    who, where = pair.primary.url_of("pair").split("@")
    return f"{who}@127.0.0.1:{pair.primary.port},{where.replace(str(pair.primary.port), str(pair.standby.port))}"


@pytest.fixture
def engine_of_both(url: str) -> Iterator[Engine]:
    engine = make_engine(url, application_name=WORKER_NAME, options=WORKER)
    yield engine
    engine.dispose()


@pytest.fixture
def service(engine_of_both: Engine, publisher: Publisher) -> Service:
    return Service(engine_of_both, publisher)


@pytest.fixture
def handled(service: Service) -> Iterator[Callable[..., "Future[list[str]]"]]:
    """Give a function that applies messages in a thread: they may have to wait."""
    with ThreadPoolExecutor() as threads:
        yield lambda *messages, keep_alive=lambda: None: threads.submit(service.handle, messages, keep_alive)


def port(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT inet_server_port()")) or 0)


def in_recovery(connection: Connection) -> bool:
    return bool(connection.scalar(text("SELECT pg_is_in_recovery()")))


def test_lookups_are_answered_by_a_standby_that_has_what_was_committed_before(
    pair: Pair, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = make_engine(url, application_name="tests").execution_options(isolation_level="AUTOCOMMIT")
    standby = Standby.beside(primary, pair.standby.url_of("pair"), application_name="tests")
    with primary.connect() as writer:
        writer.execute(text("SET synchronous_commit = local"))  # so that the standby is behind
        writer.execute(text("CREATE TABLE written (number integer)"))
        with monkeypatch.context() as patient:
            patient.setattr("models.standby.LAG", 20.0)
            for number in range(30):
                writer.execute(text("INSERT INTO written VALUES (:number)"), {"number": number})
                with cast(Connection, standby.connect()) as reader:
                    assert in_recovery(reader)
                    assert reader.scalar(text("SELECT max(number) FROM written")) == number
        pair.standby.value("SELECT pg_wal_replay_pause()")
        writer.execute(text("DROP TABLE written"))
        assert standby.connect() is None
        pair.standby.value("SELECT pg_wal_replay_resume()")
        assert standby.connect() is None  # left for a while
        standby._not_before -= REST
        with cast(Connection, standby.connect()) as reader:
            assert in_recovery(reader)
    standby.close()
    primary.dispose()


def test_lookups_are_answered_by_the_primary_where_the_standby_is_away(
    pair: Pair, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.connect(url, standbys=pair.standby.url_of("pair"))
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", url)
    monkeypatch.setenv("ENROLLMENT_READ_URL", url)
    with monkeypatch.context() as patient:
        patient.setattr("models.standby.LAG", 20.0)
        assert asyncio.run(database.lookup(in_recovery))
        assert not asyncio.run(database(in_recovery))
        with lookup() as connection:
            assert in_recovery(connection)
        assert "are answered by a standby" in str(list(_database(Settings.load())))
    pair.standby.freeze()
    assert not asyncio.run(database.lookup(in_recovery))
    pair.standby.kill()
    with lookup() as connection:
        assert not in_recovery(connection)
    assert "the primary is asked" in str(list(_database(Settings.load())))
    pair.standby.start()
    database.close()


def test_the_exporter_tells_whether_the_standby_is_there(
    pair: Pair, url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", url)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", redis_url)
    system = System(Settings.load())
    sample, server = registry_of(system).get_sample_value, {"server": "database"}
    pair.until_synchronous()
    assert (sample("enrollment_replicas", server), sample("enrollment_replicas_wanted", server)) == (1, 1)
    pair.standby.kill()
    eventually(lambda: sample("enrollment_replicas", server) == 0)
    assert sample("enrollment_replicas_wanted", server) == 1
    pair.standby.start()
    system.close()


def test_a_commit_that_only_one_server_has_is_told_when_the_other_has_it_too(
    pair: Pair, service: Service, handled: Callable[..., "Future[list[str]]"], events: Events
) -> None:
    pair.standby.kill()
    sent, signs = message(ENROLL, 99, [10]), list[None]()  # nobody, so that a repeat locks nothing
    done = handled(sent, keep_alive=lambda: signs.append(None))
    for way in ("pg_cancel_backend", "pg_terminate_backend", "pg_cancel_backend"):
        eventually(lambda: pair.primary.value(END_THEM.format(way)))  # noqa: B023 (called at once)
    eventually(lambda: pair.primary.value(HANGING))  # again: it is a repeat by now, and has nothing to write
    so_far = len(signs)
    eventually(lambda: len(signs) > so_far + 1)  # it keeps its claims, for as long as it takes
    assert not done.done()
    assert events() == []
    pair.standby.start()
    assert done.result(30) == ["repeat"]
    service.relay()
    assert [event["id"] for event in events()] == [sent.task_id]


def test_doctor_says_which_server_is_a_standby(pair: Pair) -> None:
    said = [(it.status, it.name) for it in _database(Settings(database_url=SecretStr(pair.standby.url_of("pair"))))]
    assert said == [("ok", "database"), ("fail", "replication")]
    assert ("ok", "synchronous: 1 standby") in [
        (it.status, it.message) for it in _database(Settings(database_url=SecretStr(pair.primary.url_of("pair"))))
    ]


def test_the_relay_tells_nothing_that_only_one_server_has(pair: Pair, service: Service, events: Events) -> None:
    with pytest.MonkeyPatch.context() as patch:  # as if killed right after its commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        service.handle([message(ENROLL, 2, [10])])
    pair.standby.kill()
    with ThreadPoolExecutor() as threads:
        relayed = threads.submit(service.relay, older_than=0)
        eventually(lambda: pair.primary.value(HANGING))
        assert events() == []
        pair.standby.start()
        assert relayed.result(30) == 1


def test_what_was_read_on_one_server_is_not_confirmed_by_another(pair: Pair, engine: Engine) -> None:
    primary = make_engine(pair.primary.url_of("pair"), application_name="tests")
    with primary.connect() as connection, pytest.raises(Moved) as caught:
        confirm_apart(engine, connection)
    assert is_outage(caught.value)
    primary.dispose()


def test_a_primary_that_says_nothing_is_left_for_the_one_that_replaced_it(
    pair: Pair, url: str, handled: Callable[..., "Future[list[str]]"], engine_of_both: Engine, events: Events
) -> None:
    old, new = pair.nodes
    assert port(engine_of_both) == old.port
    read = Database.connect(url)
    with asyncio.Runner() as loop:
        while not read._sessions._free:
            loop.run(read.courses_of(3))
        old.freeze()
        sent = message(ENROLL, 3, [10])
        done = handled(sent)
        pair.promote()
        loop.run(read.courses_of(3))
        read.close()
    assert done.result(60) == ["applied"]
    assert [event["id"] for event in events()].count(sent.task_id) == 1
    assert port(engine_of_both) == new.port
    old.kill()


def test_a_primary_that_was_replaced_is_not_written_to_when_it_comes_back(
    pair: Pair, url: str, engine_of_both: Engine
) -> None:
    old, new = pair.nodes
    old.start()  # un-fenced, and the first in the address
    assert old.value("SELECT NOT pg_is_in_recovery()")
    assert port(engine_of_both) == new.port
    found = {
        (it.status, it.name, it.message.partition(" (")[0]) for it in _database(Settings(database_url=SecretStr(url)))
    }
    assert ("ok", "servers", f"127.0.0.1:{new.port} is the primary") in found
    assert ("fail", "servers", f"127.0.0.1:{old.port} was replaced as the primary and takes writes still") in found
    engine_of_both.dispose()
    new.kill()
    with pytest.raises(OperationalError, match="was replaced as the primary"):
        port(engine_of_both)
    new.start()
    assert port(engine_of_both) == new.port


def test_a_session_on_a_server_that_takes_no_writes_any_more_ends(pair: Pair, engine_of_both: Engine) -> None:
    insert = text("INSERT INTO students (id) VALUES (6)")
    with engine_of_both.connect() as connection:
        connection.execute(text("SET default_transaction_read_only = on"))
        connection.commit()
        with pytest.raises(DBAPIError, match="read-only") as caught:
            connection.execute(insert)
        assert caught.value.connection_invalidated
    with engine_of_both.begin() as connection:
        connection.execute(insert)


def test_with_asynchronous_replication_an_event_may_outlive_its_commit_and_sending_again_brings_both(
    pair: Pair, service: Service, events: Events
) -> None:
    pair.join()
    pair.primary.set(synchronous_standby_names="")
    pair.standby.set(primary_conninfo="")  # what was not sent to it yet
    eventually(lambda: pair.standby.value("SELECT count(*) = 0 FROM pg_stat_wal_receiver"))
    sent = message(ENROLL, 4, [10])
    assert service.handle([sent]) == ["applied"]
    pair.primary.kill()
    pair.promote()
    with pair.primary.session("pair") as session:
        assert session.execute("SELECT FROM commands WHERE command_id = %s", [sent.task_id]).fetchone() is None
    assert [event["id"] for event in events()] == [sent.task_id]
    assert service.handle([sent]) == ["applied"]
    assert [event["id"] for event in events()] == [sent.task_id] * 2  # a reader knows the second by its id
    with pair.primary.session("pair") as session:
        assert session.execute("SELECT FROM commands WHERE command_id = %s", [sent.task_id]).fetchone() == ()


def test_a_standby_of_a_primary_that_was_replaced_is_not_asked_however_far_it_is(pair: Pair) -> None:
    pair.join()
    pair.primary.set(synchronous_standby_names="")
    old = pair.primary
    pair.promote()
    with old.session() as session:  # nobody has told it: its log grows
        session.execute("SELECT pg_logical_emit_message(false, 'tests', repeat('x', 10000000)), pg_switch_wal()")
    old.kill()
    (old._data / "standby.signal").touch()  # as one of its standbys would be, which follows it still
    old.start()
    primary = make_engine(pair.primary.url_of("pair"), application_name="tests")
    standby = Standby.beside(
        primary.execution_options(isolation_level="AUTOCOMMIT"), old.url_of("pair"), application_name="tests"
    )
    assert old.value("SELECT pg_is_in_recovery()")
    assert standby.connect() is None
    standby.close()
    primary.dispose()
