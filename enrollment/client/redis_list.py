"""LPUSH over a connection that redis-py has opened: its own layers take longer than Redis and the network."""

import sys
from collections.abc import Callable, Sequence
from os import get_blocking
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET, socket
from struct import pack
from typing import Any, Generic, TypeVar

from redis.exceptions import ResponseError

M = TypeVar("M")


class RedisList(Generic[M]):
    """Sends the command that `packed` makes of messages, and waits for the answer.

    Raises OSError and ResponseError: then some may not be there.
    """

    def __init__(self, connection: Any, packed: Callable[[M], bytes]) -> None:
        self.packed = packed
        self._wire: socket = connection._sock  # noqa: SLF001
        _let_kernel_watch_time(self._wire)

    def __call__(self, messages: M) -> None:
        """Send messages."""
        try:
            self._wire.sendall(self.packed(messages))
            answer = _line(self._wire)
        except BlockingIOError as error:
            raise TimeoutError("it does not answer in time") from error
        if not answer.startswith(b":") or answer.count(b"\n") > 1:  # an error, or more than the length of the list
            raise ResponseError(answer[1:].decode(errors="replace"))

    @property
    def socket(self) -> "socket | None":
        """What messages are sent over, where they are sent as they are: not over TLS."""
        return self._wire if type(self._wire) is socket else None


def in_resp(words: Sequence[bytes]) -> bytes:
    """Return a command as Redis reads it (RESP, the Redis serialization protocol)."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def _line(wire: socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        came = wire.recv(4096)
        if not came:
            raise ConnectionResetError("it hung up")
        line += came
    return line


def _let_kernel_watch_time(wire: socket) -> None:
    """Spare a call of the system before each other one: Python asks whether it would wait (socket(7), SO_RCVTIMEO)."""
    seconds = wire.gettimeout()
    if seconds and type(wire) is socket and sys.platform == "linux":  # over TLS, Python would try again for ever
        limit = pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        wire.setsockopt(SOL_SOCKET, SO_RCVTIMEO, limit)
        wire.setsockopt(SOL_SOCKET, SO_SNDTIMEO, limit)
        wire.settimeout(None)
        if not get_blocking(wire.fileno()):  # gevent's, which waits by itself
            wire.settimeout(seconds)
