"""LPUSH over a connection that redis-py has opened: its own layers take longer than Redis and the network."""

import sys
from collections.abc import Callable
from socket import SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET, socket
from struct import pack
from typing import Any

from redis.exceptions import ResponseError


def lpush_over(connection: Any) -> Callable[..., None]:
    """Return what puts entries on a list, all or none. Raises OSError and ResponseError: then some may not be there."""
    wire: socket = connection._sock  # noqa: SLF001
    _let_kernel_watch_time(wire)

    def lpush(key: bytes, *entries: bytes) -> None:
        words = [b"*%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (2 + len(entries), len(key), key)]
        words += [b"$%d\r\n%b\r\n" % (len(entry), entry) for entry in entries]
        try:
            wire.sendall(b"".join(words))
            answer = _line(wire)
        except BlockingIOError as error:
            raise TimeoutError("it does not answer in time") from error
        if not answer.startswith(b":") or answer.count(b"\n") > 1:  # an error, or more than the length of the list
            raise ResponseError(answer[1:].decode(errors="replace"))

    return lpush


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
