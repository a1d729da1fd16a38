"""Whoever can send wants to stop the worker: by memory, above all. A real worker, and what Linux counts of it."""

import base64
import bz2
import gzip
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from redis import Redis

from tests.acceptance.faults.malformed import ENROLL, Envelope, envelope
from tests.eventually import eventually
from tests.root import ROOT
from worker.local.process import Child
from worker.transport.limits import MOST_BYTES

BOUND = 640  # MB, resident: what docs/messages.md says, "Limits"
MB = 1_000_000
PATIENCE = 90.0


def zeros(compressor: Any, size: int = 400 * MB) -> bytes:
    """Compress many zeros without having them in memory."""
    piece = bytes(10 * MB)
    pieces = [compressor.compress(piece) for _ in range(size // len(piece))]
    return b"".join([*pieces, compressor.flush()])


def compressed(body: bytes, method: str, **more: Any) -> Envelope:
    made = envelope("", compression=method, **more)
    made["body"] = base64.b64encode(body).decode()
    return made


def kwargs(text: str) -> str:
    return f"[[], {text}, {{}}]"


def plain(body: str, task: str = ENROLL) -> Envelope:
    """Return an envelope with the body as text: less of it is wasted on base64."""
    made = envelope("", task=task)
    return {**made, "body": body, "properties": {**made["properties"], "body_encoding": "utf-8"}}


def headed(**headers: Any) -> Envelope:
    return envelope([[], {"student_id": 1, "course_ids": [1]}, {}], **headers)


def items(item: str, megabytes: float) -> str:
    return ",".join([item] * int(megabytes * MB // (len(item) + 1)))


# How much of each is sent at once, and what it is.
HOSTILE: dict[str, tuple[int, Callable[[], Envelope | bytes]]] = {
    "bz2 bombs": (50, lambda: compressed(BOMBS["bz2"], "application/x-bz2")),
    "a zlib bomb": (2, lambda: compressed(BOMBS["zlib"], "gzip")),
    "an lzma bomb": (2, lambda: compressed(BOMBS["lzma"], "xz")),
    "lzma with a large dictionary": (2, lambda: compressed(lzma.compress(b"x", preset=9), "xz")),
    "bombs just below the limit": (
        10,
        lambda: compressed(zlib.compress(kwargs(f'{{"course_ids": [{items("{}", 1.7)}]}}').encode()), "zlib"),
    ),
    "zstd": (1, lambda: compressed(b"x", "zstd")),
    "lists of lists": (2, lambda: plain(f"[[{items('[]', 1.7)}],{{}},{{}}]")),
    "fifteen megabytes of empty objects": (2, lambda: plain(f"[[{items('{}', 15)}],{{}},{{}}]")),
    "a million bad courses": (2, lambda: plain(kwargs(f'{{"student_id":1,"course_ids":[{items("{}", 1.7)}]}}'))),
    "a million equal courses": (2, lambda: plain(kwargs(f'{{"student_id":1,"course_ids":[{items("1", 2)}]}}'))),
    "a million fields": (2, lambda: plain(kwargs(json.dumps({f"f{i}": 0 for i in range(800_000)})))),
    "a million headers": (2, lambda: headed(**{f"h{i}": i for i in range(800_000)})),
    "a header of megabytes": (2, lambda: headed(shadow="x" * 15 * MB)),
    "an id of megabytes": (2, lambda: envelope([[], {}, {}], task_id="x" * 10 * MB)),
    "a task of megabytes": (2, lambda: envelope([[], {}, {}], task="x" * 10 * MB)),
    "argsrepr of megabytes": (2, lambda: headed(argsrepr="x" * 10 * MB, kwargsrepr=["x"] * 1000, origin={"x": 1})),
    "expiry of megabytes": (2, lambda: headed(expires="2" * 10 * MB)),
    "a compression of megabytes": (2, lambda: headed(compression="x" * 10 * MB)),
    "an encoding of megabytes": (2, lambda: {**headed(), "content-encoding": "x" * 10 * MB}),
    "a content type of megabytes": (2, lambda: {**headed(), "content-type": "x" * 10 * MB}),
    "a source of megabytes": (2, lambda: plain(kwargs(json.dumps({"student_id": 1, "source": "x" * 10 * MB})))),
    "numbers of 4,000 digits": (2, lambda: plain(f"[[{items('9' * 4000, 10)}],{{}},{{}}]")),
    "headers 5,000 deep": (2, lambda: json.dumps(headed(deep="@")).replace('"@"', "[" * 5000 + "]" * 5000).encode()),
    "a body 5,000 deep": (2, lambda: plain(kwargs(f'{{"student_id":{"[" * 5000}{"]" * 5000}}}'))),
    "many commands of a thousand courses": (2, lambda: plain(BULK, task="enrollment.apply.v1")),
    "larger than a message may be": (2, lambda: b"x" * (MOST_BYTES + 1)),
    "a hundred megabytes": (1, lambda: b"x" * 100 * MB),
}
BOMBS: dict[str, bytes] = {}
ENCODINGS = ["zip", "bz2", "rot13", "idna", "punycode", "hex", "uu", "undefined", "utf-16", "utf-7", "unicode_escape"]
BULK: str = kwargs(
    json.dumps(
        {
            "commands": [
                {
                    "command_id": str(uuid4()),
                    "command": "enroll",
                    "student_id": n,
                    "course_ids": list(range(n, n + 1000)),
                }
                for n in range(1, 1001)
            ]
        },
        separators=(",", ":"),
    )
)


class Target:
    """A real worker, its queue and its database."""

    def __init__(self, database_url: str, redis_url: str, log: Path) -> None:
        self.redis: Any = Redis.from_url(redis_url)
        self.database = psycopg.connect(database_url, autocommit=True)
        self.database.execute("INSERT INTO students (id, name) VALUES (1, 'S')")
        self.database.execute("INSERT INTO courses (id, code) VALUES (1, 'C')")
        variables = {
            "ENROLLMENT_DATABASE_URL": database_url,
            "ENROLLMENT_BROKER_URL": redis_url,
            "ENROLLMENT_VISIBILITY_TIMEOUT": "5",
        }
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "--without-mingle", "--without-gossip"]
        self.child = Child(name="worker", command=command, log=log, cwd=ROOT, env={**os.environ, **variables})
        self.child.start()
        eventually(lambda: log.exists() and "ready." in log.read_text(errors="replace"), PATIENCE)

    def push(self, entry: Envelope | bytes, queue: str = "enrollment") -> None:
        self.redis.lpush(queue, entry if isinstance(entry, bytes) else json.dumps(entry))

    def good(self, count: int = 10) -> list[str]:
        ids = [str(uuid4()) for _ in range(count)]
        for id_ in ids:
            self.push(envelope([[], {"student_id": 1, "course_ids": [1]}, {}], task_id=id_))
        return ids

    def one(self, query: str, *parameters: object) -> Any:
        row = self.database.execute(query, parameters).fetchone()
        return row[0] if row else None

    def processed(self, ids: list[str]) -> bool:
        found = self.one(
            "SELECT count(*) FROM commands WHERE outcome = 'applied' AND command_id = ANY(%s::uuid[])", ids
        )
        return bool(found == len(ids))

    def at_rest(self) -> bool:
        return not any(self.redis.exists(key) for key in ("enrollment", "enrollment.bulk", "unacked"))

    def peak(self) -> int:
        """Return the most memory that the worker has had, in MB."""
        status = Path(f"/proc/{self.child.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1000


@pytest.fixture
def target(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Target]:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells how much memory a process has had")
    target = Target(database_url, redis_url, tmp_path / "worker.log")
    yield target
    print((tmp_path / "worker.log").read_text(errors="replace")[-6000:])  # noqa: T201 (pytest shows it when it fails)
    target.child.kill()
    target.redis.close()
    target.database.close()


@pytest.fixture(scope="module", autouse=True)
def bombs() -> None:
    BOMBS["bz2"] = zeros(bz2.BZ2Compressor())
    BOMBS["zlib"] = zeros(zlib.compressobj(9))
    BOMBS["lzma"] = zeros(lzma.LZMACompressor(preset=0), 300 * MB)


@pytest.mark.timeout(900)
def test_no_message_takes_more_memory_than_is_documented(target: Target) -> None:
    peaks = {}
    for name, (count, make) in HOSTILE.items():
        entry = make()
        for _ in range(count):
            target.push(entry, "enrollment.bulk" if "thousand" in name else "enrollment")
        del entry
        good = target.good()
        eventually(lambda: target.processed(good) and target.at_rest(), PATIENCE)  # noqa: B023 (called at once)
        peaks[name] = target.peak()
    print(peaks)  # noqa: T201 (pytest shows it when the test fails)
    assert max(peaks.values()) < BOUND
    assert target.redis.hlen("unacked_too_large") == 3
    large = "SELECT count(*) FROM dead_letters WHERE code = 'too_large' AND message LIKE '%%HGET unacked_too_large%%'"
    assert target.one(large) == 3


def test_no_name_of_an_encoding_opens_anything(target: Target) -> None:
    for name in ENCODINGS:
        target.push({**headed(), "content-encoding": name})
    good = target.good()
    eventually(lambda: target.processed(good) and target.at_rest(), PATIENCE)
    assert target.one("SELECT count(*) FROM dead_letters WHERE code = 'undecodable_body'") == len(ENCODINGS)


def test_garbage_that_came_together_is_kept_in_one_transaction(target: Target) -> None:
    target.redis.lpush("enrollment", *(it for _ in range(50) for it in (b"garbage", json.dumps(headed(task="x")))))
    eventually(target.at_rest, PATIENCE)
    assert target.one("SELECT count(*) FROM dead_letters") == 100
    assert target.one("SELECT count(DISTINCT xmin::text) FROM dead_letters") == 1


@pytest.mark.parametrize(
    ("method", "compress"),
    [
        ("application/x-gzip", zlib.compress),
        ("gzip", gzip.compress),
        ("application/x-bz2", bz2.compress),
        ("application/x-lzma", lzma.compress),
    ],
)
def test_what_a_producer_compresses_is_applied(target: Target, method: str, compress: Callable[[bytes], bytes]) -> None:
    id_ = str(uuid4())
    body = kwargs('{"student_id": 1, "course_ids": [1]}').encode()
    target.push(compressed(compress(body), method, task_id=id_))
    eventually(lambda: target.processed([id_]), PATIENCE)
    target.push(compressed(compress(body), method, task_id=(late := str(uuid4())), expires="2020-01-01T00:00:00+00:00"))
    eventually(lambda: target.one("SELECT payload FROM dead_letters WHERE command_id = %s", late) == body.decode())
