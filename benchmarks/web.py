"""What HTTP costs: lookups beside a bare route, writes beside an earlier gateway, and beside the queue itself."""

import io
import random
import re
import selectors
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final, cast

from benchmarks.ground import Ground, wait
from benchmarks.growth import EACH, filled
from benchmarks.http_gateway import over_http, through_queue, timed
from benchmarks.processes import running
from benchmarks.root import ROOT
from benchmarks.systems import ours
from benchmarks.workload import COURSES
from worker.local.process import Child
from worker.local.server import free_port

CLIENTS: Final = 16
ROWS: Final = 100_000
EARLIER: Final = "e6cd1c6"  # the goal of writes is beside the gateway of this commit
_WARM_UP: Final = 0.3  # seconds
_LENGTH: Final = re.compile(rb"content-length: (\d+)")


@dataclass(frozen=True, slots=True)
class Web:
    """Requests per second of one process with 16 clients, and milliseconds of one client (medians).

    First through the gateway, then beside it; None where an earlier gateway could not be had.
    """

    lookups: tuple[float, float]
    writes: tuple[float, float | None]
    write_ms: tuple[float, float]


def web(ground: Ground, *, seconds: float, writes: int, rounds: int, before: Path | None) -> Web:
    """Measure each in turn, `rounds` times, with one worker behind; `before` is a checkout of the earlier gateway."""
    ground.empty_redis()
    with filled(ground, ROWS) as url, running(ground, ours(1), url), ExitStack() as stack:
        before = before or _checkout(ground.folder / "earlier")
        gateway = stack.enter_context(_served(ground, "gateway", url))
        bare = stack.enter_context(_served(ground, "bare", url))
        earlier = before and stack.enter_context(_served(ground, "earlier", url, before))
        wait(lambda: timed(over_http(gateway), 0) > 0, seconds=60, what="a worker")
        lookups = _in_turn(rounds, seconds, _lookups(), gateway, bare)
        found = _in_turn(rounds, seconds, _writes(), gateway, *([earlier] if earlier else []))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", gateway)))
        ways = _alone(client), through_queue(ground.redis.url)
        times = [[timed(way, number) * 1000 for way in ways] for number in range(writes)][writes // 10 :]
    return Web(
        (lookups[0], lookups[1]),
        (found[0], found[1] if earlier else None),
        (median(over for over, _ in times), median(through for _, through in times)),
    )


def _in_turn(rounds: int, seconds: float, requests: Iterator[bytes], *ports: int) -> list[float]:
    rates = [[_rate(port, requests, seconds) for port in ports] for _ in range(rounds)]
    return [median(rate) for rate in zip(*rates, strict=True)]


def _lookups() -> Iterator[bytes]:
    draw = random.Random(8)  # noqa: S311 - to be repeatable is the point
    while True:
        yield b"GET /students/%d/courses HTTP/1.1\r\nHost: localhost\r\n\r\n" % draw.randint(1, ROWS // EACH)


def _writes() -> Iterator[bytes]:
    draw = random.Random(9)  # noqa: S311 - as above
    while True:
        yield _write(draw.randint(1, ROWS // EACH), draw.randint(1, COURSES))


def _write(student: int, course: int) -> bytes:
    body = b'{"course_id": %d}' % course
    return (
        b"POST /students/%d/courses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (student, len(body), body)
    )


def _alone(client: socket.socket) -> Callable[[int], None]:
    """Return what sends the same command as `through_queue`, in one packet: `http.client` takes two."""

    def send(number: int) -> None:
        client.sendall(_write(number % 1000 + 1, number % 100 + 1))
        answer = bytearray(client.recv(65536))
        while not _is_whole(answer):
            answer += client.recv(65536)

    return send


def _rate(port: int, requests: Iterator[bytes], seconds: float) -> float:
    """Return how many answers a second come, each client sending its next request when it has one."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(next(requests))
            selector.register(client, selectors.EVENT_READ, bytearray())
        begin, answers = perf_counter() + _WARM_UP, 0
        while (now := perf_counter()) < begin + seconds:
            for key, _ in selector.select(1.0):
                client, answer = cast(socket.socket, key.fileobj), key.data
                answer += client.recv(65536)
                if _is_whole(answer):
                    answer.clear()
                    client.sendall(next(requests))
                    answers += now > begin
        return answers / seconds


def _is_whole(answer: bytearray) -> bool:
    if not answer.startswith(b"HTTP/1.1 200 "[: len(answer)]) or not answer:
        raise RuntimeError(f"an answer begins with {bytes(answer[:20])!r}")
    head, end, body = answer.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return bool(end and found and len(body) == int(found[1]))


@contextmanager
def _served(ground: Ground, name: str, url: str, place: Path = ROOT) -> Iterator[int]:
    """Serve the gateway of a checkout, or the bare route; give the port."""
    port, system = free_port(), replace(ours(1, ENROLLMENT_GATEWAY_RATE="0"), place=place)
    command = ("uvicorn", "--no-access-log", "benchmarks.bare:app") if name == "bare" else ("enrollment", "gateway")
    child = Child(
        name=name,
        command=[*system.command(ground.folder, command), "--port", str(port)],
        log=ground.folder / f"{name}.log",
        env=system.environment(database_url=url, redis_url=ground.redis.url),
        cwd=place,
    )
    child.start()
    try:
        wait(lambda: _answers(port), seconds=30, what=f"the start of {name}")
        yield port
    finally:
        child.stop()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _checkout(folder: Path) -> Path | None:
    """Return the state of the earlier commit; None where there is no git, or less than its whole history."""
    command = ["git", "archive", EARLIER]
    done = subprocess.run(command, check=False, capture_output=True, cwd=ROOT)
    if done.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
