"""`enrollment doctor`: it finds what is wrong, and says what to do."""

import socket
import subprocess
from threading import Event, Thread
from typing import Any

import pytest
from redis import Redis as Client
from sqlalchemy import Engine, text

from enrollment.names import ENROLL
from migrations import NEWEST
from tests.integration.cli.conftest import Result, Run, start
from tests.integration.conftest import message
from tests.integration.locked import held
from worker.consume.monitoring import REVISION
from worker.heartbeats import asking
from worker.local.postgres import Postgres
from worker.local.redis import Redis
from worker.service import Service

pytestmark = pytest.mark.usefixtures("nobody_answers")


def status_of(done: Result) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in done.json_lines:
        found.setdefault(line["name"], []).append(line["status"])
    return found


def test_doctor_finds_nothing_but_the_missing_worker(run: Run, service: Service) -> None:
    done = run("doctor", "--json")
    assert done.code == 1
    assert status_of(done) == {
        "database": ["ok"],
        "migrations": ["ok"],
        "catalog": ["ok"],
        "outbox": ["ok"],
        "dead letters": ["ok"],
        "locks": ["ok"],
        "broker": ["ok", "ok", "ok"],
        "queues": ["ok"],
        "events": ["ok"],
        "workers": ["fail"],
    }


def test_doctor_finds_a_redis_that_takes_no_writes(run: Run, redis_client: Any) -> None:
    redis_client.replicaof("127.0.0.1", 1)
    try:
        found = run("doctor", "--json").json_lines
    finally:
        redis_client.replicaof("no", "one")
    [message] = [line["message"] for line in found if line["name"] == "broker" and line["status"] == "fail"]
    assert message == "is a replica of 127.0.0.1:1, and takes no writes"


def test_doctor_tells_of_another_database_of_the_same_redis(run: Run, redis_url: str) -> None:
    server, _, own = redis_url.rpartition("/")
    with Client.from_url(f"{server}/3") as other:
        other.rpush("enrollment", "sent to the wrong number")
        found = run("doctor", "--json").json_lines
        other.flushdb()
    [line] = [line for line in found if "same server" in line["message"]]
    assert line["message"].startswith(f"its database {own} is used here; of the same server db")
    assert "db3" in line["message"]


def test_doctor_tells_a_worker_that_waits_from_none(run: Run, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.checks.BEAT", 2.0)
    begun, over = Event(), Event()

    def beat() -> None:
        app = asking("test", redis_url)
        with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="w1@h") as dispatcher:
            while not over.wait(0.2):
                dispatcher.send("worker-heartbeat", **{REVISION: NEWEST})
                begun.set()

    thread = Thread(target=beat)
    thread.start()
    try:
        assert begun.wait(20)
        [found] = [line for line in run("doctor", "--json").json_lines if line["name"] == "workers"]
    finally:
        over.set()
        thread.join()
    assert found["status"] == "fail"
    assert found["message"] == "w1@h gives signs of life and does not answer: it waits for a server, or is busy"
    assert "waiting_for_database" in found["advice"]


def test_doctor_warns_of_dead_letters_that_nobody_decided_about(run: Run, service: Service) -> None:
    service.handle([message(ENROLL, 4, course_id=[10]), message(ENROLL, 4, [10], task_id="none")])
    [found] = [line for line in run("doctor", "--json").json_lines if line["name"] == "dead letters"]
    assert found["status"] == "warn"
    assert found["message"] == "2 dead letters open: command_id_missing 1, invalid_command 1"
    assert "enrollment dead-letters list" in found["advice"]


def test_doctor_finds_what_loses_messages(run: Run, redis: Redis, redis_client: Any) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    redis_client.set("enrollment.events", "no stream")
    found = status_of(run("doctor", "--json"))
    assert found["broker"] == ["ok", "warn", "fail"]
    assert found["events"] == ["fail"]
    assert found["catalog"] == ["warn"]
    redis_client.config_set("appendonly", "yes")


def test_doctor_finds_a_database_that_is_not_migrated(run: Run, postgres: Postgres) -> None:
    url = postgres.create_database("empty", exist_ok=True)
    done = run("doctor", "--json", ENROLLMENT_DATABASE_URL=url)
    postgres.drop_database("empty")
    assert status_of(done)["migrations"] == ["fail"]
    assert "enrollment migrate" in done.output


def test_doctor_tells_what_is_away(run: Run, postgres: Postgres, redis: Redis) -> None:
    postgres.stop()
    redis.stop()
    done = run("doctor")
    assert done.code == 1
    assert [(row[0], row[1]) for row in done.rows[:-1]] == [
        ("fail", name) for name in ("database", "broker", "events", "workers")
    ]
    assert done.rows[-1] == ["4 failures, no warnings."]


def test_doctor_tells_which_session_holds_what_commands_wait_for(run: Run, service: Service, engine: Engine) -> None:
    with held(engine, "SELECT FROM students WHERE id = 4 FOR UPDATE"):
        service.handle([message(ENROLL, 4, [10]), message(ENROLL, 4, [11])])
        [found] = [line for line in run("doctor", "--json").json_lines if line["name"] == "locks"]
    assert found["status"] == "warn"
    assert found["message"].startswith("2 commands put off, the first ")
    for told in ("the students 4", "tests, user postgres, idle in transaction", "SELECT FROM students WHERE id = 4"):
        assert told in found["message"]
    assert "pg_terminate_backend(" in found["advice"]


def test_doctor_tells_which_session_holds_a_table(run: Run, service: Service, engine: Engine) -> None:
    with held(engine, "LOCK TABLE students IN ACCESS EXCLUSIVE MODE"):
        [found] = [line for line in run("doctor", "--json").json_lines if line["name"] == "locks"]
    assert (found["status"], found["message"][:17]) == ("warn", "tables are locked")
    assert "LOCK TABLE students" in found["message"]


def test_doctor_tells_which_transaction_the_change_feed_waits_for(run: Run, service: Service, engine: Engine) -> None:
    with held(engine, "SELECT pg_current_xact_id()"):
        service.handle([message(ENROLL, 4, [10])])
        with engine.begin() as connection:
            connection.execute(text("UPDATE commands SET processed_at = processed_at - interval '2 minutes'"))
        [found] = [line for line in run("doctor", "--json").json_lines if line["name"] == "feed"]
    assert (found["status"], found["message"][:32]) == ("warn", "the change feed has stood still ")
    assert "SELECT pg_current_xact_id()" in found["message"]
    assert "pg_terminate_backend(" in found["advice"]


def test_an_exporter_whose_port_is_taken_says_so_in_a_sentence(variables: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(variables, "exporter", "--port", str(port), stderr=subprocess.PIPE) as exporter:
            assert exporter.stderr is not None
            said = exporter.stderr.read()
    assert exporter.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "Traceback" not in said
