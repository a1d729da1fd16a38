"""Two PostgreSQL servers, one of them the standby of the other, which change places."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from worker.local.errors import NotStarted
from worker.local.postgres import ENVIRONMENT, Postgres
from worker.local.process import run

CATCHES_UP = 60.0  # seconds; a standby that was lost asks for its primary every fraction of one


class Node(Postgres):
    """One of two. Where it has no data, it is a standby with a copy of what `follows` has; else it is what it was."""

    follows: str | None = None  # the address of a primary, as the standby reaches it

    def _initialise(self) -> None:
        if self.follows is None:
            super()._initialise()
            return
        command = [str(self._install / "bin" / "pg_basebackup"), "--pgdata", str(self._data), "--dbname", self.follows]
        command += ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        self._home.chmod(0o777)
        done = run(command, account=self._account, env=ENVIRONMENT, cwd=self._home)
        self._home.chmod(0o711)
        if done.returncode != 0:
            raise NotStarted(name="pg_basebackup", log=self.log, tail=done.stdout)

    def follow(self, address: str) -> None:
        """Start as the standby of the server at `address`, with a fresh copy of it."""
        self.kill()
        self.follows = address
        shutil.rmtree(self._data, ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """Stop it and all of its processes, as a machine that hangs: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as `kill -9` does, and the processes that it has left: frozen ones would not notice."""
        if self.running:
            children = self._children()
            os.kill(self.pid, signal.SIGKILL)
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        super().kill()

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)  # first: it starts no more processes
        for pid in self._children():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @contextmanager
    def session(self, database: str = "postgres") -> Iterator["psycopg.Connection[Any]"]:
        """Give a session of the superuser that waits for no standby."""
        with psycopg.connect(
            self.url_of(database), autocommit=True, application_name="oracle", connect_timeout=5
        ) as connection:
            connection.execute("SET synchronous_commit = local")
            yield connection

    def set(self, **settings: str) -> None:
        """Change settings while it runs."""
        with self.session() as session:
            for name, value in settings.items():
                session.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
            session.execute("SELECT pg_reload_conf()")

    def value(self, question: str) -> Any:
        """Return the one value that it answers."""
        with self.session() as session:
            row = session.execute(question.encode()).fetchone()
        return row[0] if row else None


class Pair:
    """A primary and a standby with one password; synchronous from the first moment on at which both are there."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        quick = {"wal_retrieve_retry_interval": "200ms", "wal_receiver_timeout": "5s", "wal_sender_timeout": "5s"}
        self.nodes = [Node(folder / name, durable=False, settings={**quick, **settings}) for name in ("one", "two")]
        self.primary, self.standby = self.nodes
        for node in self.nodes:
            node.folder.mkdir(parents=True)
            (node.folder / "password").write_text(self.primary.password)

    def join(self, address: str | None = None) -> None:
        """Start the standby with a fresh copy, and wait until every commit waits for it."""
        self.standby.follow(address or self.primary.url)
        self.primary.set(synchronous_standby_names="*")
        self.until_synchronous()

    def until_synchronous(self) -> None:
        """Wait until the standby has what the primary has, and commits wait for it."""
        end = time.monotonic() + CATCHES_UP
        question = """SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'
                         AND replay_lsn >= pg_current_wal_flush_lsn() - 16384"""
        while not self.primary.value(question):
            assert time.monotonic() < end, "the standby does not follow"
            time.sleep(0.05)

    def promote(self) -> None:
        """Make the standby the primary. It does not wait for a standby until it has one again."""
        self.primary, self.standby = self.standby, self.primary
        self.primary.value("SELECT pg_promote()")
        self.primary.set(synchronous_standby_names="")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
