"""What the database's address says, in sessions of the worker and the command line."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text

from models.engine import BY_KEY, make_engine
from tests.integration.cli.conftest import start
from worker.local.postgres import Postgres
from worker.local.server import free_port


@contextmanager
def session(url: str, **options: str) -> Iterator[Connection]:
    engine = make_engine(url, application_name="tests", options=options)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def shown(connection: Connection, *names: str) -> list[str]:
    return [str(connection.scalar(text(f"SHOW {name}"))) for name in names]


def test_options_of_the_address_are_kept_beside_ours_and_ours_win(database_url: str) -> None:
    said = "-csearch_path=school -c lock_timeout=7h -c work_mem=5MB"
    with session(f"{database_url}?options={said}&application_name=mine", **BY_KEY) as connection:
        connection.rollback()  # a session's settings outlive its transactions
        assert shown(connection, "search_path", "work_mem", "application_name") == ["school", "5MB", "mine"]
        assert shown(connection, "lock_timeout", "statement_timeout") == ["10s", "1min"]
        assert shown(connection, "enable_seqscan", "TimeZone") == ["off", "UTC"]


def test_options_of_the_environment_and_of_a_service_are_kept_as_well(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = psycopg.conninfo.conninfo_to_dict(database_url)
    lines = [f"{name}={value}" for name, value in said.items()]
    (tmp_path / "services").write_text("\n".join(["[school]", *lines, "options=-csearch_path=served"]))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with session("postgresql:///?service=school") as connection:
        assert shown(connection, "search_path", "lock_timeout") == ["served", "10s"]
    monkeypatch.setenv("PGOPTIONS", "-csearch_path=surroundings")
    with session(database_url) as connection:
        assert shown(connection, "search_path", "lock_timeout", "application_name") == ["surroundings", "10s", "tests"]


def test_a_password_may_be_in_a_file(database_url: str, tmp_path: Path) -> None:
    said = psycopg.conninfo.conninfo_to_dict(database_url)
    file = tmp_path / "passwords"
    file.write_text(f"*:*:*:*:{said['password']}\n")
    file.chmod(0o600)
    with session(f"postgresql://{said['user']}@{said['host']}:{said['port']}/{said['dbname']}?passfile={file}") as it:
        assert it.scalar(text("SELECT 1")) == 1


@pytest.fixture(scope="module")
def read_only(session_postgres: Postgres, server_folder: Path) -> Iterator[Postgres]:
    """Give a second server, of the same password, that takes no writes, as a standby."""
    folder = server_folder / "read_only"
    folder.mkdir()
    (folder / "password").write_text(session_postgres.password)
    with Postgres(folder, durable=False) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.mark.parametrize("form", ["libpq", "SQLAlchemy"])
def test_a_dead_host_is_passed_over_and_a_read_only_one_too(database_url: str, read_only: Postgres, form: str) -> None:
    said = psycopg.conninfo.conninfo_to_dict(database_url)
    hosts = [f"127.0.0.1:{port}" for port in (free_port(), read_only.port, said["port"])]
    who, name = f"{said['user']}:{said['password']}", said["dbname"]
    url = (
        f"postgresql://{who}@{','.join(hosts)}/{name}?"
        if form == "libpq"
        else f"postgresql+psycopg://{who}@/{name}?host={'&host='.join(hosts)}&"
    )
    url += "target_session_attrs=read-write"
    with session(url) as connection:
        assert connection.scalar(text("SELECT inet_server_port()")) == int(str(said["port"]))
    doctor = start({"ENROLLMENT_DATABASE_URL": url}, "doctor", stdout=subprocess.PIPE)
    assert "ok\tmigrations" in doctor.communicate(timeout=60)[0]
