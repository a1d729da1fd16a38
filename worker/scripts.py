"""Lua scripts in Redis, run on a connection that is kept: to take one from a pool takes longer than a script."""

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
        self._taken: tuple[ConnectionPool, Any] | None = None
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
        pool = self._pool()
        if self._taken is None or self._taken[0] is not pool:
            self._taken = pool, pool.get_connection()
            return self._taken[1]
        connection = self._taken[1]
        try:
            stale = connection.can_read()  # nothing was asked: a pool would not give it, either
        except (OSError, RedisError):
            stale = True
        if stale:
            connection.disconnect()
        connection.connect()
        return connection
