"""`enrollment doctor`: it finds what is wrong, and says what to do."""

from typing import Any

from tests.integration.cli.conftest import Result, Run
from worker.local.postgres import Postgres
from worker.local.redis import Redis
from worker.service import Service


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
        "broker": ["ok", "ok", "ok", "ok"],
        "queues": ["ok"],
        "events": ["ok"],
        "workers": ["fail"],
    }


def test_doctor_finds_what_loses_messages(run: Run, redis: Redis, redis_client: Any) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    redis_client.set("enrollment.events", "no stream")
    found = status_of(run("doctor", "--json"))
    assert found["broker"] == ["ok", "warn", "fail", "ok"]
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
