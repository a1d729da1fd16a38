"""A TCP proxy that can be told to break what passes through it: cut, swallow, or keep an answer to itself."""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER 0: closing sends a reset, as a broken network does
FEW_COME: Final = 2.0  # seconds that a number of bytes is waited for
ANSWER_COMES: Final = 60.0  # seconds that an answer is waited for: a worker may be busy starting anew
TAIL: Final = 64  # bytes of the last piece that are looked at again, for a word cut in two


class Cut(Exception):
    """This connection ends here."""


@dataclass(eq=False)
class _Link:
    """One connection of a client, and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tail: bytes = b""
    keep_answer: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


@dataclass
class Proxy:
    """Passes everything on to `port` of this machine, until it is told otherwise; runs in a thread of its own."""

    port: int  # of the server
    listens_on: int = 0
    answers_kept: int = 0
    cuts: int = 0
    _links: set[_Link] = field(default_factory=set)
    _word: bytes | None = None  # in a request whose answer is to be kept
    _budget: dict[str, int] = field(default_factory=dict)  # direction -> bytes until the next cut
    _refusing: bool = False

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    @property
    def in_use(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._links)

    # --- what it can be told

    def cut_all(self) -> None:
        """Reset every connection now."""
        self._do(self._cut_all)

    def cut_after(self, direction: str, size: int) -> None:
        """Reset the connection on which the next `size` bytes `up` or `down` are complete; all, if too few come."""
        before = self.cuts
        self._do(lambda: self._budget.update({direction: size}))
        if not _wait(lambda: self.cuts > before, FEW_COME):
            self.cut_all()

    def swallow(self, *, on: bool) -> None:
        """Let nothing through, as a network that has gone, and later what was held back."""
        self._do(self._open.clear if on else self._open.set)

    def refuse(self, *, on: bool) -> None:
        """Be a server that is not there."""

        def do() -> None:
            self._refusing = on
            if on:
                self._cut_all()

        self._do(do)

    def keep_next_answer_to(self, word: bytes) -> None:
        """Pass on the next request that has this word in it, and reset instead of passing on its answer.

        Returns when that has happened. Raises TimeoutError.
        """
        before = self.answers_kept
        self._do(lambda: self._look_for(word))
        if not _wait(lambda: self.answers_kept > before, ANSWER_COMES):
            raise TimeoutError(f"No answer to {word!r} came by.")

    def _look_for(self, word: bytes | None) -> None:
        self._word = word

    def heal(self) -> None:
        """Stop breaking things."""
        self._do(lambda: self._look_for(None))
        self.refuse(on=False)
        self._do(self._budget.clear)
        self.swallow(on=False)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- how it is done, in the thread of the loop

    def _do(self, action: Callable[[], object]) -> None:
        async def run() -> None:
            action()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.listens_on)
        self.listens_on = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        """Hang up, and let every task come to its own end: asyncio prints a traceback for each that is cancelled."""
        self._server.close()
        self._refusing = True
        self._open.set()
        self._cut_all()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        if self._refusing:  # since then
            link.reset()
        try:
            up = asyncio.ensure_future(self._pump(link, reader, to_server, "up"))
            down = asyncio.ensure_future(self._pump(link, from_server, writer, "down"))
            await asyncio.wait([up, down])
        finally:
            self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._open.wait()
                self._pass(link, writer, data, direction)
                await writer.drain()
            with suppress(OSError, RuntimeError):
                writer.close()  # the other side has hung up: so do we
        except (Cut, OSError):
            link.reset()

    def _pass(self, link: _Link, writer: asyncio.StreamWriter, data: bytes, direction: str) -> None:
        if direction == "down" and link.keep_answer:
            self.answers_kept += 1
            raise Cut
        if direction == "up" and self._word is not None:
            if self._word in link.tail + data:
                self._word, link.keep_answer = None, True
            link.tail = data[-TAIL:]
        budget = self._budget.get(direction)
        if budget is not None:
            self._budget[direction] = budget - len(data)
            if budget <= len(data):
                del self._budget[direction]
                self.cuts += 1
                _write_now(writer, data[:budget])
                raise Cut
        writer.write(data)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def _write_now(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write without the buffer that a reset would throw away."""
    if data and not writer.transport.get_write_buffer_size():
        with suppress(OSError), writer.get_extra_info("socket").dup() as sock:
            sock.sendall(data)


def random_cut(rng: random.Random) -> tuple[str, int]:
    """Return a direction and a number of bytes: often within a message, sometimes many later."""
    return rng.choice(["up", "down"]), rng.choice([rng.randrange(200), rng.randrange(2_000), rng.randrange(20_000)])
