"""Each program as the user that `enrollment acl` and the role that `enrollment grants` make for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql
from redis import Redis as RedisClient
from redis import ResponseError

from models.grants import PREFIX, RIGHTS
from models.metadata import METADATA
from tests.acceptance.privileged import DATABASE, OPTIONS, STREAM, follow, got, send, use_the_gateway
from tests.eventually import eventually
from tests.migration.steps import alembic_config
from tests.root import ROOT
from worker import acl
from worker.local.postgres import Postgres
from worker.local.process import Child
from worker.local.redis import Redis
from worker.local.server import free_port
from worker.local.stack import environment
from worker.settings import BrokerOptions

ENROLLMENT: Final = str(ROOT / ".venv/bin/enrollment")
PASSWORD: Final = "secret"
USERS: Final = {
    user.role: user
    for user in acl.users(stream=STREAM, options=BrokerOptions.model_validate(OPTIONS), database=DATABASE)
}
ROLES: Final = {"producer": "worker", "flower": "reader", "consumer": "reader"}  # who else needs a database, or none
ALWAYS: Final = {"auth", "hello", "quit", "reset"}  # Redis refuses these to nobody


@dataclass
class Place:
    """Redis and PostgreSQL with the users and the roles, and their owners' connections."""

    redis: Any
    postgres: psycopg.Connection
    broker: str  # host and port
    database: str  # host, port and name
    folder: Path

    def broker_url(self, role: str) -> str:
        return f"redis://{acl.PREFIX}{role}:{PASSWORD}@{self.broker}/{DATABASE}"

    def database_url(self, role: str) -> str:
        return f"postgresql://{PREFIX}{ROLES.get(role, role)}:{PASSWORD}@{self.database}"

    def variables(self, role: str) -> dict[str, str]:
        return {
            "ENROLLMENT_DATABASE_URL": self.database_url(role),
            "ENROLLMENT_BROKER_URL": self.broker_url(role),
            "ENROLLMENT_BROKER_OPTIONS": json.dumps(OPTIONS),
            "ENROLLMENT_EVENTS_STREAM": STREAM,
            "FLOWER_UNAUTHENTICATED_API": "true",
        }

    def start(self, role: str, *command: str) -> Child:
        log, variables = self.folder / f"{role}.log", environment(self.variables(role))
        child = Child(name=role, command=list(command), log=log, env=variables, cwd=ROOT)
        child.start()
        return child

    def run(self, role: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        variables = environment(self.variables(role))
        return subprocess.run(
            [ENROLLMENT, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def place(server_folder: Path, session_postgres: Postgres, template_database: str) -> Iterator[Place]:
    url = session_postgres.create_database("privileges", template_database)
    folder = server_folder / "privileges"
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder, durable=False))
        admin: Any = stack.enter_context(RedisClient.from_url(redis.url, decode_responses=True))
        owner = stack.enter_context(psycopg.connect(url, autocommit=True))
        place = Place(admin, owner, f"127.0.0.1:{redis.port}", url.rpartition("@")[2], folder)
        variables = {**os.environ, **place.variables("worker"), "ENROLLMENT_DATABASE_URL": url}
        for user in USERS.values():
            admin.execute_command("ACL", "SETUSER", *user.line(PASSWORD).split(" ")[1:])
        done = subprocess.run([ENROLLMENT, "grants"], env=variables, capture_output=True, text=True, check=True)
        owner.execute(sql.SQL(done.stdout))
        owner.execute(sql.SQL(done.stdout))  # a second time changes nothing
        for role in (*RIGHTS, "owner"):
            owner.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(PREFIX + role), PASSWORD))
        owner.execute("INSERT INTO students (id, name) SELECT g, 'S' || g FROM generate_series(1, 9) g")
        owner.execute("INSERT INTO courses (id, code) SELECT g, 'C' || g FROM generate_series(10, 20) g")
        yield place
        owner.execute("REASSIGN OWNED BY enrollment_owner TO CURRENT_USER")
        for role in (*RIGHTS, "owner"):
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(PREFIX + role)))


def test_every_program_does_its_job_and_is_refused_nothing(place: Place) -> None:
    celery = (sys.executable, "-m", "celery", "-A", "worker")
    gateway, flower, exporter = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    place.redis.acl_log_reset()
    with ExitStack() as stack:
        for role, arguments in {
            "worker": (*celery, "worker"),
            "producer": (*celery, "beat", "--pidfile="),
            "gateway": (ENROLLMENT, "gateway", "--port", gateway.rpartition(":")[2]),
            "exporter": (ENROLLMENT, "exporter", "--port", exporter.rpartition(":")[2]),
        }.items():
            stack.callback(place.start(role, *arguments).kill)
        worker = place.folder / "worker.log"
        eventually(lambda: " ready." in worker.read_text(), 60)
        port = flower.rpartition(":")[2]  # last: it looks for the workers once, when it starts
        stack.callback(place.start("flower", *celery, "flower", "--address=127.0.0.1", f"--port={port}").kill)
        sent = send(place.broker_url("producer"))
        follow(place.broker_url("consumer"), place.redis, sent)
        use_the_gateway(gateway)
        eventually(lambda: "enrollment_workers 1.0" in got(f"{exporter}/metrics"))
        metrics = got(f"{exporter}/metrics")
        for server in ("database", "broker", "stream"):
            assert f'enrollment_up{{server="{server}"}} 1.0' in metrics
        eventually(lambda: json.loads(got(f"{flower}/api/queues/length") or "{}").get("active_queues"), 60)
        eventually(lambda: json.loads(got(f"{flower}/api/workers?refresh=1") or "{}"), 60)
        for role, *words in (
            ("worker", "doctor"),
            ("worker", "retention", "--days", "9"),
            ("consumer", "snapshot"),
        ):
            done = place.run(role, *words)
            assert done.returncode == 0, done.stdout + done.stderr
    assert place.redis.acl_log() == []
    assert "permission denied" not in "".join(log.read_text() for log in place.folder.glob("*.log"))


def test_users_may_use_no_command_that_is_left_out(place: Place) -> None:
    listed = {name.lower() for name in place.redis.execute_command("COMMAND LIST")}
    commands = listed - {name.partition("|")[0] for name in listed if "|" in name}
    assert len(commands) > 300
    for user in USERS.values():
        allowed = {name for name in commands if "no permissions to run" not in try_out(place, user, *name.split("|"))}
        assert allowed - ALWAYS == set(user.commands), user.role


def test_users_may_use_no_key_that_is_left_out(place: Place) -> None:
    queues = {"school:enrollment", "school:enrollment:9", "school:enrollment.bulk", "school:enrollment.bulk\x06\x163"}
    claims = {"school:unacked", "school:unacked_index", "school:unacked_deliveries", "school:unacked_too_large"}
    bound = {"school:_kombu.binding.enrollment", "school:_kombu.binding_permanent.enrollment.bulk"}
    control = {"school:_kombu.binding.reply.celery.pidbox", "school:me.reply.celery.pidbox", "school:celeryev.me"}
    batch, sent, foreign = {f"{{{STREAM}}}:batch:x"}, {f"{{{STREAM}}}:gateway:x"}, {
        *("enrollment", "enrollment:9", "unacked", "other:enrollment", "school:enrollment.other", "school:x", "x"),
        *("schoolXevents", "enrollment.events", "{schoolXevents}:batch:x", "session:1"),
    }  # fmt: skip
    writes = {
        "producer": queues | bound,
        "consumer": {STREAM},
        "gateway": queues | bound | control | sent,
        "worker": queues | bound | claims | control | batch | {STREAM},
        "flower": control | {"school:_kombu.binding.enrollment", "school:_kombu.binding_permanent.enrollment.bulk"},
        "exporter": control | {"school:_kombu.binding.enrollment", "school:_kombu.binding_permanent.enrollment.bulk"},
    }
    reads = {
        "gateway": claims | {STREAM},
        "flower": queues,
        "exporter": queues | {"school:unacked", "school:unacked_index", STREAM},
    }
    every = queues | bound | claims | control | batch | sent | foreign | {STREAM}
    for role, user in USERS.items():
        plain = acl.User("trial", ("get", "set", "del"), user.keys, user.reads)
        place.redis.execute_command("ACL", "SETUSER", plain.name, *plain.rules())
        changed = {key for key in every if try_out(place, plain, "SET", key, "x") == "OK"}
        read = {key for key in every if try_out(place, plain, "GET", key) == "OK"}
        assert (changed, read) == (writes[role], writes[role] | reads.get(role, set())), role
        others = ("celery", "/3.celeryev/x", "school:/0.celeryev/x", "school:/3.other")
        heard = [it for it in (*others, "school:/3.celeryev/x") if try_out(place, user, "PUBLISH", it, "x") == "OK"]
        assert heard == (["school:/3.celeryev/x"] if user.channels else []), role
    place.redis.acl_deluser(f"{acl.PREFIX}trial")


def try_out(place: Place, user: acl.User, *words: str) -> str:
    """Return what Redis says to a command of a user, without doing it; with as many arguments as the command takes."""
    for more in range(12):
        try:
            return str(place.redis.execute_command("ACL", "DRYRUN", user.name, *words, *["x"] * more))
        except ResponseError as error:
            if "wrong number of arguments" not in str(error):
                raise
    raise AssertionError(words)


PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@pytest.mark.parametrize("role", RIGHTS)
def test_roles_have_no_right_to_a_table_that_is_left_out(place: Place, role: str) -> None:
    for table, privilege in product([*METADATA.tables, "alembic_version"], PRIVILEGES):
        listed = RIGHTS[role].get(table, "")
        [row] = place.postgres.execute(
            "SELECT has_table_privilege(%(role)s, %(table)s, %(privilege)s),"
            " CASE WHEN %(privilege)s IN ('SELECT', 'UPDATE', 'INSERT', 'REFERENCES')"
            " THEN has_any_column_privilege(%(role)s, %(table)s, %(privilege)s) END",
            {"role": f"{PREFIX}{role}", "table": table, "privilege": privilege},
        )
        whole = privilege in {it.strip() for it in listed.split(",")}
        assert row[0] == whole, (table, privilege)
        if row[1] is not None:
            assert row[1] == (privilege in listed), (table, privilege)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("worker", "UPDATE students SET id = 0"),
        ("worker", "UPDATE courses SET code = ''"),
        ("worker", "UPDATE commands SET outcome = ''"),
        ("worker", "DELETE FROM audit"),
        ("worker", "CREATE TABLE mine (id int)"),
        ("worker", "ALTER TABLE students DISABLE TRIGGER ALL"),
        ("gateway", "DELETE FROM student_courses"),
        ("gateway", "DELETE FROM students"),
        ("gateway", "UPDATE alembic_version SET version_num = '0001'"),
        ("reader", "SELECT * FROM dead_letters"),
        ("reader", "UPDATE students SET name = ''"),
        ("exporter", "SELECT payload FROM dead_letters"),
        ("exporter", "SELECT name FROM students"),
    ],
)
def test_a_role_is_refused_what_is_not_its_job(place: Place, role: str, statement: LiteralString) -> None:
    with (
        psycopg.connect(place.database_url(role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_the_owner_migrates_and_nobody_else_does(place: Place) -> None:
    with pytest.raises(CommandError, match="must be owner"):
        command.downgrade(alembic_config(place.database_url("worker")), "-1")
    command.downgrade(alembic_config(place.database_url("owner")), "-1")
    command.upgrade(alembic_config(place.database_url("owner")), "head")
