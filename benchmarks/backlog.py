"""How fast a system works off a backlog, and whether what it leaves is right."""

import json
import subprocess
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import sql

from benchmarks.ground import Ground, count, value, wait
from benchmarks.processes import cpu_seconds, running
from benchmarks.systems import System
from benchmarks.workload import Enroll, pairs_of, write
from worker.local.process import Child

STEADY: Final = (0.2, 0.95)  # the part of a run that counts: not the start of its processes, not its last batch
START: Final = 60.0  # seconds until the first event
PATIENCE: Final = 180.0  # seconds for a run
_CHUNK: Final = 5_000  # entries of a stream in one answer

# When each event was added, by the clock of Redis; the events themselves stay there. KEYS: stream. ARGV: start, number.
_TIMES: Final = """
local ids = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do ids[#ids + 1] = entry[1] end
return ids
"""


class WrongResultError(Exception):
    """A system did not do the work; its rate means nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Processor time is in microseconds per command; it is missing where there is no /proc."""

    commands: int
    rate: float
    worker_us: float = 0.0
    postgres_us: float = 0.0
    redis_us: float = 0.0


@dataclass(slots=True)
class Backlogs:
    """Full queues. Each is made once, through the API of its system, and put back for every run as it was."""

    _dumps: dict[tuple[object, ...], list[tuple[bytes, int, bytes]]] = field(default_factory=dict)

    def fill(self, ground: Ground, system: System, url: str, commands: Sequence[Enroll]) -> None:
        """Fill the queue of `system` with `commands`."""
        key = (system.peer, system.send, commands[0].command_id, len(commands))
        with ground.client() as client:
            if key in self._dumps:
                for name, ttl, dump in self._dumps[key]:
                    client.restore(name, max(0, ttl), dump)
                return
            send(ground, system, url, commands)
            if not system.in_database:
                self._dumps[key] = [(name, client.pttl(name), client.dump(name)) for name in client.scan_iter()]


def send(ground: Ground, system: System, url: str, commands: Sequence[Enroll]) -> None:
    """Send commands as a producer of `system` does. Raises WrongResultError."""
    path = write(ground.folder / "commands.jsonl", commands)
    done = subprocess.run(
        [*system.command(ground.folder.parent, system.send), str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=system.cwd,
        env=system.environment(database_url=url, redis_url=ground.redis.url),
    )
    if done.returncode != 0:
        raise WrongResultError(f"{system.key} cannot be sent to: {done.stderr[-2000:]}")


def measure(
    ground: Ground, system: System, url: str, commands: Sequence[Enroll], backlogs: Backlogs, *, grown: bool = False
) -> Run:
    """Fill the queue, start the workers, wait for the events, see that all is there. Raises WrongResultError.

    The database is `fresh`, or `grown`: then it holds other rows as well, and is not cleaned up before.
    """
    backlogs.fill(ground, system, url, commands)
    if not grown:
        ground.checkpoint()
    with running(ground, system, url) as children:
        events = _Events(ground, system)
        used = Used(ground, children)
        try:
            wait(lambda: _alive(children) and events.length() > 0, seconds=START, what=f"the start of {system.key}")
            first, start = events.length(), used.now()
            wait(lambda: _alive(children) and events.length() >= len(commands), seconds=PATIENCE, what=system.key)
            end = used.now()
        except (TimeoutError, WrongResultError) as error:
            reason = f"{error}; {events.length()} of {len(commands)} events; {children[0].tail()}"
            raise WrongResultError(reason) from error
        each = [1e6 * (b - a) / max(1, len(commands) - first) for a, b in zip(start, end, strict=True)]
        if system.peer is None:
            wait(lambda: _settled(ground, url), seconds=10, what="the settlement of the last batch")
    check(ground, system, url, commands, grown=grown)
    return Run(len(commands), steady_rate(events.times()), *each)


def check(ground: Ground, system: System, url: str, commands: Sequence[Enroll], *, grown: bool = False) -> None:
    """See that each command has its rows, its record and its one event. Raises WrongResultError.

    `grown`: the database held other rows, too.
    """
    wanted = pairs_of(commands)
    records = _OWN_RECORDS.format(sql.Identifier(system.records))
    found = (
        value(url, _OWN_ROWS, map(list, zip(*sorted(wanted), strict=True))),
        value(url, records, [[it.command_id for it in commands]]) if grown else count(url, system.records),
    )
    if found != (len(wanted), len(commands)):
        raise WrongResultError(f"{system.key}: {found[0]} of {len(wanted)} rows, {found[1]} of {len(commands)} records")
    if not grown and count(url, "student_courses") != len(wanted):
        raise WrongResultError(f"{system.key}: rows that nobody asked for")
    ids = sorted(_event_ids(ground, system))
    if ids != sorted(command.command_id for command in commands):
        raise WrongResultError(f"{system.key}: {len(ids)} events, {len(set(ids))} different, of {len(commands)}")


_OWN_RECORDS: Final = sql.SQL("SELECT count(*) FROM {} WHERE command_id = ANY(%s::uuid[])")
# By the primary key, one by one: the table may be large.
_OWN_ROWS: Final = sql.SQL("""
    SELECT count(*) FROM unnest(%s::bigint[], %s::bigint[]) AS wanted(student_id, course_id)
     CROSS JOIN LATERAL (
        SELECT FROM student_courses AS there
         WHERE (there.student_id, there.course_id) = (wanted.student_id, wanted.course_id) LIMIT 1) AS found
""")


def steady_rate(times: Sequence[int]) -> float:
    """Return the events per second in the steady part; `times` are milliseconds, in order.

    Batches commit many at once, so the part begins and ends with a commit. A run of one batch has no such part: 0.
    """
    low, high = (times[min(len(times) - 1, int(share * len(times)))] for share in STEADY)
    if low == high:
        low, high = times[0], times[-1]
    if low == high:
        return 0.0
    return 1000 * (bisect_right(times, high) - bisect_right(times, low)) / (high - low)


class _Events:
    def __init__(self, ground: Ground, system: System) -> None:
        self._client = ground.client()
        self._stream = system.stream

    def length(self) -> int:
        return int(self._client.xlen(self._stream))

    def times(self) -> list[int]:
        script = self._client.register_script(_TIMES)
        found: list[bytes] = []
        start = b"-"
        while ids := script(keys=[self._stream], args=[start, _CHUNK]):
            found += ids
            start = b"(" + ids[-1]
        return [int(id_.split(b"-")[0]) for id_ in found]


def _event_ids(ground: Ground, system: System) -> Iterable[str]:
    start = "-"
    with ground.client() as client:
        while entries := client.xrange(system.stream, start, "+", count=_CHUNK):
            for _, fields in entries:
                yield str(json.loads(fields[b"event"])["id"])
            start = f"({entries[-1][0].decode()}"


class Used:
    """Processor seconds of the workers, of PostgreSQL and of Redis."""

    def __init__(self, ground: Ground, children: Sequence[Child]) -> None:
        self._roots = ([child.pid for child in children], [ground.postgres.pid], [ground.redis.pid])

    def now(self) -> tuple[float, ...]:
        """Return how much each has used until now."""
        return tuple(map(cpu_seconds, self._roots))


def _alive(children: Sequence[Child]) -> bool:
    ended = [child.name for child in children if not child.running]
    if ended:
        raise WrongResultError(f"{', '.join(ended)} ended")
    return True


def _settled(ground: Ground, url: str) -> bool:
    with ground.client() as client:
        left: Any = client.hlen("unacked") + client.llen("enrollment") + client.llen("enrollment.bulk")
    return not left and not count(url, "outbox")
