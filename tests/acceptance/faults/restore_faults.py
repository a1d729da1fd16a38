"""A store is lost and restored from a copy of before, and `enrollment reconcile --repair` puts both right."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.acceptance.faults.commands import INVALID, Generator, Message
from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import Run, Scenario
from tests.acceptance.faults.waits import until
from worker.local.postgres import ENVIRONMENT, Postgres
from worker.local.process import run as execute
from worker.local.server import Server
from worker.local.stack import environment

MESSAGES: Final = 30  # between two steps
RECONCILE: Final = 60.0  # seconds
# Of PostgreSQL: go on from a base backup with the log of the server that is lost, up to a moment, on a new timeline.
TO_A_MOMENT: Final = """
restore_command = 'cp "{archive}/%f" "%p"'
recovery_target_name = '{name}'
recovery_target_action = 'promote'
"""


class Producer:
    """Sends what ends with an event (dead letters are lost with a database), and can send it again."""

    def __init__(self, run: Run) -> None:
        self._sender = Sender(run.harness.redis.url, run.sent_log)
        self._messages = self._with_events(Generator(run.fork()))
        self.sent: list[Message] = []

    def say(self, count: int = MESSAGES) -> None:
        for _ in range(count):
            self.sent.append(next(self._messages))
            self._sender.send(self.sent[-1])

    def repeat(self, messages: Sequence[Message]) -> None:
        for each in messages:
            self._sender.send(each)

    def close(self) -> None:
        self._sender.close()

    @staticmethod
    def _with_events(messages: Generator) -> Iterator[Message]:
        said: dict[str, Any] = {}
        for message in messages:
            if message.markers or any(each.ends == INVALID for each in message.said):
                continue
            if all(said.setdefault(each.command_id, each) == each for each in message.said):
                yield message


def _restored(run: Run) -> None:
    """Lose and restore, one way after the other."""
    for number in range(run.count):
        producer = Producer(run)
        producer.say()
        repeated = RESTORES[number % len(RESTORES)](run, producer)
        _reconcile(run.harness)
        run.harness.wake()
        producer.repeat(producer.sent[repeated:])
        producer.say()
        _reconcile(run.harness)  # beside workers at work: there is nothing to put right, and nothing to be doubled
        producer.close()
        run.injected += 1
        until(lambda: not run.harness.leftovers(), 60)


def _database(run: Run, producer: Producer) -> int:
    """Start the data files of before, as they were copied."""
    copy = _base_backup(run.harness)
    producer.say()
    run.pause()
    run.harness.rest()  # with some commands decided, and others in the queue
    _replace(run.harness.postgres, run.harness.postgres._data, copy)
    return len(producer.sent)


def _database_at_a_moment(run: Run, producer: Producer) -> int:
    """Recover to a point in time."""
    harness, copy = run.harness, _base_backup(run.harness)
    producer.say()
    name = f"before-{run.injected}"
    with harness.database() as connection:
        connection.execute("SELECT pg_create_restore_point(%s)", [name])
    producer.say()
    until(lambda: not harness.leftovers(), 60)
    harness.rest()
    harness.postgres.stop()
    archive = copy.with_name("archive")
    _copy(harness.postgres._data / "pg_wal", archive)
    with (copy / "postgresql.auto.conf").open("a") as settings:
        settings.write(TO_A_MOMENT.format(archive=archive, name=name))
    (copy / "recovery.signal").touch()
    _give(harness.postgres, copy / "recovery.signal")
    _replace(harness.postgres, harness.postgres._data, copy)
    until(lambda: _is_primary(harness), 30, every=0.1)
    return len(producer.sent)


def _redis(run: Run, producer: Producer) -> int:
    """Restore a Redis of before, whose queue has commands that were decided since."""
    copy = _copy_of_redis(run.harness)
    until(lambda: not run.harness.leftovers(), 60)
    producer.say()
    until(lambda: not run.harness.leftovers(), 60)
    run.harness.rest()
    _replace(run.harness.redis, run.harness.redis.folder / "data", copy)
    return len(producer.sent)


def _both(run: Run, producer: Producer) -> int:
    """Restore both from different times; producers repeat what they sent since the copy of Redis."""
    database = _base_backup(run.harness)
    producer.say()
    copy, since = _copy_of_redis(run.harness), len(producer.sent)
    producer.say()
    run.pause()
    run.harness.rest()
    _replace(run.harness.postgres, run.harness.postgres._data, database)
    _replace(run.harness.redis, run.harness.redis.folder / "data", copy)
    return since


RESTORES: Final[Sequence[Callable[[Run, Producer], int]]] = (_database_at_a_moment, _both, _redis, _database)


def _base_backup(harness: Harness) -> Path:
    """Return a copy of the data files of the running server, as `pg_basebackup` makes it."""
    postgres = harness.postgres
    target = postgres._home / "base"
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(target.with_name("archive"), ignore_errors=True)
    program = str(postgres._install / "bin" / "pg_basebackup")
    target.mkdir(mode=0o700)
    _give(postgres, target)
    command = [program, f"--dbname={postgres.url}", f"--pgdata={target}", "--checkpoint=fast", "--no-sync"]
    done = execute(command, account=postgres._account, env=ENVIRONMENT, cwd=postgres._home)
    assert done.returncode == 0, done.stdout
    return target


def _copy_of_redis(harness: Harness) -> Path:
    """Return a copy of the append-only file, whose end may be cut off."""
    target = harness.redis.folder / "copy"
    shutil.rmtree(target, ignore_errors=True)
    _copy(harness.redis.folder / "data", target)
    return target


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["/bin/cp", "-a", str(source), str(target)], check=True)


def _replace(server: Server, data: Path, copy: Path) -> None:
    server.stop()
    shutil.rmtree(data)
    copy.rename(data)
    server.start()


def _give(postgres: Postgres, path: Path) -> None:
    """Let the server own this."""
    if postgres._account is not None:
        os.chown(path, postgres._account.uid, postgres._account.gid)


def _is_primary(harness: Harness) -> bool:
    with harness.database() as connection:
        row = connection.execute("SELECT pg_is_in_recovery() AS standby").fetchone()
    return row is not None and not row["standby"]


def _reconcile(harness: Harness) -> None:
    command = [sys.executable, "-c", "from worker.cli import main; main()", "reconcile", "--repair"]
    done = subprocess.run(
        command,
        env=environment(harness.variables),
        capture_output=True,
        text=True,
        timeout=RECONCILE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


SCENARIOS: Sequence[Scenario] = [
    Scenario("a store restored from a copy of before", 8, 1, _restored, traffic=False, seconds=15),
]
