"""Lua scripts in Redis, run on a connection that is kept: to take one from a pool takes longer than a script."""

import os
from collections.abc import Callable
from hashlib import sha1
from threading import Lock
from typing import Any

from redis import ConnectionPool
from redis.exceptions import NoScriptError, RedisError

from enrollment.replication import write


class Script:
    """A script, and the name under which a server knows it that has run it once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Runs scripts, one after the other. The pool may hang up its connection; the next script connects anew."""

    def __init__(self, pool: Callable[[], ConnectionPool]) -> None:
        self._pool = pool
        self._taken: Any = None  # the connection
        self._of: tuple[ConnectionPool, int] | None = None  # its pool, and the process that took it
        self._lock = Lock()

    def run(self, script: Script, keys: int, *arguments: str | float, replicas: int = 0, again: bool = False) -> Any:
        """Return what a script says, when so many `replicas` have what it wrote.

        The first of the arguments are `keys`. With `again`, a second connection is tried, as the pool is set to. Raises
        what redis-py raises, and NotReplicated.
        """
        with self._lock:
            connection = self._connection()

            def once() -> Any:
                try:
                    return write(connection, replicas, "EVALSHA", script.sha, keys, *arguments)
                except NoScriptError:  # a restarted server has forgotten its scripts
                    return write(connection, replicas, "EVAL", script.text, keys, *arguments)

            try:
                if again:
                    return connection.retry.call_with_retry(once, lambda _: connection.disconnect())
                return once()
            except BaseException:  # what this connection answers next may be meant for this
                connection.disconnect()
                raise

    def _connection(self) -> Any:
        pool, connection = self._pool(), self._taken
        if self._of != (pool, os.getpid()):
            self._taken = pool.get_connection()
            self._of = pool, os.getpid()
            return self._taken
        connected = connection._sock is not None  # noqa: SLF001 - as `connection.connect()` looks, without its layers
        try:
            stale = connected and connection._parser.can_read()  # noqa: SLF001 - nothing was asked
        except (OSError, RedisError):
            stale = True
        if stale:
            connection.disconnect()  # a pool would not give it, either
        if stale or not connected:
            connection.connect()
        return connection
