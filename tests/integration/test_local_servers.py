"""The embedded servers: they start, answer, survive what is done to them, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.root import ROOT
from worker.local import postgres as postgres_module
from worker.local import redis as redis_module
from worker.local import server as server_module
from worker.local.errors import FolderInUse, MissingServer, NamelessUser, NotStarted
from worker.local.postgres import Postgres
from worker.local.process import Child
from worker.local.redis import Redis
from worker.local.server import Server, is_free

# A parent that starts both servers in the folder it is given, says who they are, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from worker.local.postgres import Postgres
from worker.local.redis import Redis
folder = Path(sys.argv[1])
with Postgres(folder / "postgres", durable=False) as pg, Redis(folder / "redis") as redis:
    print(pg.pid, redis.pid, pg.port, redis.port, flush=True)
    time.sleep(60)
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(server_folder: Path, request: pytest.FixtureRequest) -> Path:
    """Give an empty folder of the test's own."""
    path: Path = server_folder / request.node.name.replace("[", "-").replace("]", "")
    path.mkdir(mode=0o711)
    path.chmod(0o711)
    return path


@pytest.fixture
def own_postgres(folder: Path) -> Iterator[Postgres]:
    with Postgres(folder / "postgres", durable=False) as server:
        yield server


@pytest.fixture
def own_redis(folder: Path) -> Iterator[Redis]:
    with Redis(folder / "redis") as server:
        yield server


def ask(server: Postgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def gone(pid: int) -> bool:
    """Say whether a process has ended, be it that nobody has asked what with."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def test_postgres_answers_and_is_what_was_asked_for(own_postgres: Postgres) -> None:
    assert ask(own_postgres, "SHOW data_checksums") == [("on",)]
    assert ask(own_postgres, "SHOW server_encoding") == [("UTF8",)]
    assert ask(own_postgres, "SHOW fsync") == [("off",)]
    assert ask(own_postgres, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert own_postgres.port in server_module.PORTS


def test_postgres_is_durable_unless_told_otherwise_and_takes_settings(folder: Path) -> None:
    with Postgres(folder / "postgres", settings={"max_connections": "17"}) as server:
        assert ask(server, "SHOW fsync") == [("on",)]
        assert ask(server, "SHOW max_connections") == [("17",)]


def test_postgres_refuses_a_wrong_password(own_postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(own_postgres.url.replace(own_postgres.password, "guessed"))


@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_postgres_keeps_committed_rows_and_its_port(own_postgres: Postgres, end: Callable[[Server], None]) -> None:
    ask(own_postgres, "CREATE TABLE kept AS SELECT 1 AS id")
    before = (own_postgres.url, own_postgres.pid)
    with psycopg.connect(own_postgres.url) as open_:  # does not hold it up
        end(own_postgres)
        with pytest.raises(psycopg.OperationalError):
            open_.execute("SELECT 1")
    assert not own_postgres.running
    own_postgres.start()
    assert (own_postgres.url, own_postgres.pid) == (before[0], own_postgres.pid)
    assert own_postgres.pid != before[1]
    assert ask(own_postgres, "SELECT id FROM kept") == [(1,)]


def test_postgres_starts_although_the_number_of_its_dead_process_was_given_to_another(own_postgres: Postgres) -> None:
    own_postgres.kill()
    record = next(own_postgres.folder.rglob("postmaster.pid"))
    lines = record.read_text().splitlines()
    record.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    own_postgres.start()
    assert ask(own_postgres, "SELECT 1") == [(1,)]


def test_postgres_clones_databases(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.create_database("original")) as connection:
        connection.execute("CREATE TABLE things AS SELECT 7 AS id")
    with psycopg.connect(own_postgres.create_database("copy", "original")) as connection:
        assert connection.execute("SELECT id FROM things").fetchall() == [(7,)]
    assert own_postgres.create_database("copy", exist_ok=True) == own_postgres.url_of("copy")
    own_postgres.drop_database("copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(own_postgres.url_of("copy"))


def test_a_half_made_data_folder_is_made_again(folder: Path) -> None:
    draft = folder / "postgres" / "data.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    with Postgres(folder / "postgres", durable=False) as server:
        assert ask(server, "SELECT 1") == [(1,)]


def test_redis_answers_asks_for_its_password_and_takes_settings(folder: Path) -> None:
    with (
        Redis(folder / "redis", settings={"maxmemory": "64mb", "appendfsync": "everysec"}) as server,
        Client.from_url(server.url, decode_responses=True) as client,
        Client(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.info("server")["process_id"] == server.pid
        with pytest.raises(Exception, match=r"(?i)authenticat"):
            stranger.ping()


@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_redis_keeps_what_was_written_and_its_port(own_redis: Redis, end: Callable[[Server], None]) -> None:
    with Client.from_url(own_redis.url) as client:
        client.lpush("queue", "message")
    before = own_redis.url
    end(own_redis)
    assert not own_redis.running
    own_redis.start()
    assert own_redis.url == before
    with Client.from_url(own_redis.url) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


def test_two_at_once_have_ports_of_their_own(own_postgres: Postgres, own_redis: Redis, folder: Path) -> None:
    with Postgres(folder / "second", durable=False) as postgres, Redis(folder / "third") as redis:
        assert len({own_postgres.port, own_redis.port, postgres.port, redis.port}) == 4
        assert ask(postgres, "SELECT 1") == ask(own_postgres, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("kind", [Postgres, Redis])
def test_a_port_that_somebody_took_meanwhile_is_not_ours(
    folder: Path, kind: type[Postgres | Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = server_module.free_port
    with socket.create_server(("127.0.0.1", free_port())) as neighbour:
        offered = iter([neighbour.getsockname()[1]])
        monkeypatch.setattr(server_module, "free_port", lambda: next(offered, None) or free_port())
        with kind(folder / "server") as server:
            assert server.port != neighbour.getsockname()[1]


@pytest.mark.parametrize("kind", [Postgres, Redis])
def test_a_folder_serves_one_run_at_a_time(
    folder: Path, kind: type[Postgres | Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LOCK_TIMEOUT", 0.2)
    with kind(folder / "server"), pytest.raises(FolderInUse, match="stop that one first"):
        kind(folder / "server").start()


def test_a_server_that_cannot_start_shows_its_log(folder: Path) -> None:
    with pytest.raises(NotStarted, match='unrecognized configuration parameter "no_such"'):
        Postgres(folder / "postgres", durable=False, settings={"no_such": "1"}).start()
    with pytest.raises(NotStarted, match=r"(?s)Redis did not start.*no-such"):
        Redis(folder / "redis", settings={"no-such": "1"}).start()


def test_a_missing_wheel_is_said_in_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(redis_module, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(redis_module, "ON_PATH", ())
    with pytest.raises(MissingServer, match=r"PostgreSQL is not installed here: it comes with pip install"):
        Postgres(folder / "postgres").start()
    with pytest.raises(MissingServer, match=r"Redis is not installed here"):
        Redis(folder / "redis").start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has gone")
def test_a_killed_parent_leaves_nothing_and_the_next_run_goes_on(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        *pids, postgres_port, redis_port = map(int, parent.stdout.readline().split())
        parent.kill()
    with Postgres(folder / "postgres", durable=False) as postgres, Redis(folder / "redis"):  # at once: it waits
        assert ask(postgres, "SELECT 1") == [(1,)]
        assert all(map(gone, pids))
    assert eventually(lambda: is_free(postgres_port) and is_free(redis_port))


@pytest.mark.usefixtures("executed")
def test_a_child_that_ignores_the_first_signal_is_ended_by_the_last(folder: Path) -> None:
    child = Child(
        name="stubborn",
        command=[sys.executable, "-c", STUBBORN],
        log=folder / "log",
        stop_steps=((signal.SIGTERM, 0.2),),
    )
    child.start()
    assert eventually(lambda: "up" in child.tail())
    assert child.stop() == -signal.SIGKILL
    assert not child.running


def test_a_user_without_a_name_is_told_so_before_postgresql_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Postgres(folder / "postgres")
    server._account = None
    monkeypatch.setattr("os.getuid", lambda: 54_321_000)
    with pytest.raises(NamelessUser, match="without a name, as 54321000 is"):
        server.start()
