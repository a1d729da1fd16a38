"""The rate of workers that are some milliseconds away from their servers: a proxy holds everything back for that long.

The proxy stands for the network between machines. It runs on the same cores as all else, so the rate without distance
is measured behind it as well.
"""

import asyncio
import multiprocessing
import selectors
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.backlog import Backlogs, Run, measure
from benchmarks.ground import Ground
from benchmarks.systems import ours
from benchmarks.workload import enrolls

ROUND_TRIPS: Final = (0, 1, 20)  # milliseconds
_PIECE: Final = 1 << 16


def distances(ground: Ground, *, size: int, rounds: int) -> Iterator[tuple[int, Run]]:
    """Yield the round trip in milliseconds and the run of two processes; the distances take turns."""
    commands, backlogs = enrolls(size, seed=1), Backlogs()
    for _ in range(rounds):
        for round_trip in ROUND_TRIPS:
            url, redis = ground.fresh(), ground.redis.url
            with _away(ground.postgres.port, round_trip) as sql, _away(ground.redis.port, round_trip) as queue:
                distant = ours(
                    2,
                    ENROLLMENT_DATABASE_URL=url.replace(f":{ground.postgres.port}/", f":{sql}/"),
                    ENROLLMENT_BROKER_URL=redis.replace(f":{ground.redis.port}/", f":{queue}/"),
                )
                yield round_trip, measure(ground, distant, url, commands, backlogs)


@contextmanager
def _away(port: int, round_trip: float) -> Iterator[int]:
    """Yield a port behind which a server of this machine is `round_trip` milliseconds away."""
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(port, round_trip / 2000, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def _serve(port: int, delay: float, ready: Connection) -> None:
    # `select` waits for microseconds, where `epoll` rounds up to a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass(reader, to_server, delay), _pass(from_server, writer, delay))

    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0))
    ready.send(server.sockets[0].getsockname()[1])
    loop.run_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass on what comes, each piece `delay` seconds later."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await reader.read(_PIECE):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)
