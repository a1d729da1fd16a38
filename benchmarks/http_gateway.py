"""What HTTP costs: a write through the gateway beside the same command straight through the queue, and open streams.

Everything is started for it on this machine, and stopped:

    python -m benchmarks.http_gateway
"""

import http.client
import json
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from redis import Redis

from benchmarks.root import ROOT
from enrollment.client import Client
from enrollment.names import STREAM
from models import catalog
from models.catalog import NewCourse, NewStudent
from models.engine import make_engine
from worker.local.process import Child
from worker.local.server import free_port
from worker.local.stack import Stack, environment

WRITES: Final = 500  # each way
STREAMS: Final = 200
STREAMED: Final = 200  # writes while the streams are open
PATIENCE: Final = 5.0  # seconds for all streams to say something


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="enrollment-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        _measure(folder)


def _measure(folder: Path) -> None:
    with Stack(folder, beat=False) as stack:
        _load(stack.database_url)
        port = free_port()
        variables = {**stack.variables, "ENROLLMENT_GATEWAY_RATE": "0", "ENROLLMENT_LOG_LEVEL": "WARNING"}
        gateway = Child(
            name="gateway",
            command=[str(Path(sys.executable).with_name("enrollment")), "gateway", "--port", str(port)],
            log=folder / "log" / "gateway.log",
            env=environment(variables),
            cwd=ROOT,
        )
        gateway.start()
        try:
            _until_it_answers(port)
            _compare(stack.broker_url, port)
            _streams(port, gateway.pid)
        finally:
            gateway.stop()


def _load(url: str) -> None:
    engine = make_engine(url.replace("://", "+psycopg://", 1), application_name="benchmark")
    with engine.begin() as connection:
        catalog.upsert_students(connection, (NewStudent(id_) for id_ in range(1, 1001)))
        catalog.upsert_courses(connection, (NewCourse(id_) for id_ in range(1, 101)))
    engine.dispose()


def _compare(broker_url: str, port: int) -> None:
    """Send commands both ways in turn, one at a time, and wait for the outcome of each."""
    queue, web = through_queue(broker_url), over_http(port)
    for number in range(50):
        queue(number)
        web(number)
    times: dict[str, list[float]] = {"queue": [], "HTTP": []}
    for number in range(WRITES):
        times["queue"].append(timed(queue, number))
        times["HTTP"].append(timed(web, number))
    _say(f"{WRITES} writes each way, one at a time, until the outcome is known; milliseconds:")
    for name, seconds in times.items():
        _say(f"  {name:6} {_percentiles(seconds)}")


def through_queue(broker_url: str) -> Callable[[int], None]:
    """Return what sends a command by the client, and waits for its event."""
    client, redis = Client(broker_url), Redis.from_url(broker_url, decode_responses=True, protocol=2)

    def send(number: int) -> None:
        newest: Any = redis.xrevrange(STREAM, count=1)
        position = newest[0][0] if newest else "0-0"
        command_id = str(client.enroll(number % 1000 + 1, [number % 100 + 1]))
        told: set[str] = set()
        while command_id not in told:
            answer: Any = redis.xread({STREAM: position}, block=5000)
            entries = answer[0][1]
            position = entries[-1][0]
            told = {json.loads(fields["event"])["id"] for _, fields in entries}

    return send


def over_http(port: int) -> Callable[[int], None]:
    """Return what sends the same command to a gateway, and waits for the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def send(number: int) -> None:
        body = json.dumps({"course_ids": [number % 100 + 1]})
        path = f"/students/{number % 1000 + 1}/courses"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"the gateway answered {answer.status}")

    return send


def _streams(port: int, pid: int) -> None:
    """Open streams of events, write, and see how long it takes until all of them have heard of it."""
    streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(STREAMS)]
    for stream in streams:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _chunks([stream], time.monotonic() + PATIENCE)
    time.sleep(0.5)
    send, delays = over_http(port), []
    for number in range(STREAMED):
        send(number)
        began = time.perf_counter()
        _until_all_have_it(streams)
        delays.append(time.perf_counter() - began)
    status = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    _say(
        f"{STREAMS} open streams, {STREAMED} writes; milliseconds from the answer until the last stream has the event:"
    )
    _say(f"  all    {_percentiles(delays)}")
    _say(f"  the gateway has {facts['Threads'].strip()} threads and {int(facts['VmRSS'].split()[0]) // 1024} MB")
    for stream in streams:
        stream.close()


def _until_all_have_it(streams: Collection[socket.socket]) -> None:
    deadline, left = time.monotonic() + PATIENCE, set(streams)
    while left:
        left -= {stream for stream, chunk in _chunks(left, deadline).items() if b"data: " in chunk}


def _chunks(streams: Collection[socket.socket], deadline: float) -> dict[socket.socket, bytes]:
    """Return what there is to read, of at least one stream. Raises TimeoutError, and ConnectionError if one ended."""
    ready = select.select(list(streams), [], [], max(0.0, deadline - time.monotonic()))[0]
    if not ready:
        raise TimeoutError(f"{len(streams)} streams said nothing for {PATIENCE:.0f} s")
    chunks = {stream: stream.recv(65536) for stream in ready}
    if not all(chunks.values()):
        raise ConnectionError("the gateway closed a stream")
    return chunks


def _until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            over_http(port)(0)
        except (OSError, RuntimeError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the gateway does not answer")


def timed(send: Callable[[int], None], number: int) -> float:
    """Return the seconds of one."""
    began = time.perf_counter()
    send(number)
    return time.perf_counter() - began


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    parts = [
        f"p{part} {ordered[min(len(ordered) - 1, len(ordered) * part // 100)] * 1000:5.1f}" for part in (50, 95, 99)
    ]
    return "  ".join(parts)


if __name__ == "__main__":
    main()
