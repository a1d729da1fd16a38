"""An import that is killed in the middle and said again, beside `enrollment send` of as many commands.

    python -m benchmarks.import_killed 5000000 FOLDER 0    # the last: how many workers empty the queue at the end

The files are those of `benchmarks.imports made`. Both leave their commands in the queue, which is then read: each row
has to be there under its own id. Where workers empty it, the rows of the database are counted as well.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import psycopg
from psycopg import sql

from benchmarks.ground import RUN, Ground, count, value
from benchmarks.imports import made
from benchmarks.processes import resident_mb, running
from benchmarks.systems import System, ours
from enrollment.names import BULK_QUEUE

_POLL: Final = 0.1  # seconds
_PAGE: Final = 100  # messages read at once
_HALF: Final = 2  # one row in so many is sent when the import is killed
_PATIENCE: Final = "900"  # seconds without an outcome
_IDS: Final = "SELECT command_id FROM import_rows WHERE planned = 'enroll'"


def main(rows: int, folder: Path, workers: int) -> None:
    """Measure, and print a line for each step."""
    files, commands = folder / f"made-{rows}", folder / f"commands-{rows}.jsonl"
    if not commands.exists():
        made(rows, files)
        with commands.open("w") as lines:
            for n in range(rows):
                lines.write(f'{{"command": "enroll", "student_id": {n // 10 + 1}, "course_ids": [{n % 5000 + 1}]}}\n')
    system = ours(max(workers, 1), bulk=True)
    with Ground(folder / "servers", students=0) as ground:
        told = _Told(ground, system, folder, rows)
        url = ground.database(RUN, students=0, courses=0)
        told.run("enrollment send", url, "send", str(commands), "--json")
        ground.empty_redis()
        words = ("import", str(files), "--no-wait", "--json")
        told.run("import, killed", url, *words, until=lambda: _sent(url) >= rows // _HALF)
        told.say("queue after the kill", commands=sum(1 for _ in _queued(ground)))
        told.run("import, said again", url, *words)
        told.say("queue at the end", **_compared(ground, url))
        if workers:
            with ExitStack() as stack:
                stack.enter_context(running(ground, system, url))
                told.run("import --apply 1", url, "import", "--apply", "1", "--json", "--timeout", _PATIENCE)
            found = {table: count(url, table) for table in ("commands", "student_courses", "dead_letters")}
            told.say("database at the end", **found)


class _Told:
    """Runs the command line of this project, and tells what each run took."""

    def __init__(self, ground: Ground, system: System, folder: Path, rows: int) -> None:
        self._ground, self._system, self._folder, self._rows = ground, system, folder, rows

    def run(self, name: str, url: str, *words: str, until: Callable[[], bool] = lambda: False) -> None:
        """Run `enrollment` with these words; kill it as soon as `until` says so."""
        env = self._system.environment(database_url=url, redis_url=self._ground.redis.url)
        command = self._system.command(self._folder, ("enrollment", *words))
        begun, planned, most, killed = monotonic(), 0.0, 0.0, False
        with subprocess.Popen(command, env=env, cwd=self._system.cwd, stdout=subprocess.DEVNULL) as process:
            while (found := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                most = max(most, resident_mb(process.pid, "VmHWM"))
                sleep(_POLL)
                if words[0] == "import" and not planned and _sent(url):
                    planned = monotonic() - begun
                if not killed and until():
                    killed = True
                    process.send_signal(signal.SIGKILL)
            process.returncode = os.waitstatus_to_exitcode(found[1])
            used, seconds = found[2], monotonic() - begun
        self.say(
            name,
            exit=process.returncode,
            seconds=round(seconds, 1),
            seconds_until_something_was_sent=round(planned, 1),
            rows_a_second=round(self._rows / seconds),
            own_processor_seconds=round(used.ru_utime + used.ru_stime, 1),
            peak_memory_mb=round(most, 1),
        )

    def say(self, name: str, **values: Any) -> None:
        """Print a line."""
        print(name, json.dumps(values), flush=True)  # noqa: T201 - the result


def _sent(url: str) -> int:
    """Return up to which row the newest import has noted as sent."""
    return int(value(url, sql.SQL("SELECT coalesce(max(sent), 0) FROM imports")))


def _queued(ground: Ground) -> Iterator[str]:
    with ground.client() as client:
        for start in range(0, client.llen(BULK_QUEUE), _PAGE):
            for entry in client.lrange(BULK_QUEUE, start, start + _PAGE - 1):
                body = json.loads(base64.b64decode(json.loads(entry)["body"]))
                yield from (command["command_id"] for command in body[1]["commands"])


def _compared(ground: Ground, url: str) -> dict[str, int]:
    """Return how many commands are in the queue, how many under an id that was there, and which rows are not."""
    queued, found = 0, set[str]()
    for command_id in _queued(ground):
        queued += 1
        found.add(command_id)
    said_again = queued - len(found)
    with psycopg.connect(url) as connection, connection.cursor("ids") as cursor:
        rows, missing = 0, 0
        cursor.itersize = 50_000
        for (command_id,) in cursor.execute(_IDS):
            rows += 1
            missing += str(command_id) not in found
    return {"commands": queued, "said_again": said_again, "rows": rows, "rows_without_a_command": missing}


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
