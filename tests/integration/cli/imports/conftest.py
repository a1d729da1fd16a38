"""Imports at the command line, with a worker that a test moves by hand."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis as Connection
from sqlalchemy import Engine, text

from enrollment.names import BULK_QUEUE, QUEUE
from tasks.messages import Message
from tests.integration.cli.conftest import Result, Run, write
from tests.integration.test_client import body
from worker.cli.taking_up import TakingUp
from worker.service import Service

HEADER = "course_id,user_id,role,section_id,status"
OLDER, NEWER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
MANY = 100_000  # more messages than any test has on a queue
ONEROSTER = "sourcedId,classSourcedId,userSourcedId,role,status,dateLastModified,beginDate,endDate"

Rows = Callable[..., list[tuple[Any, ...]]]
Import = Callable[..., tuple[Result, list[dict[str, str]]]]


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no outcome of rows that others have sent: what is on the queue is applied when a test says so."""
    monkeypatch.setitem(cast("dict[str, Any]", TakingUp.now.__kwdefaults__), "patience", 0)


@pytest.fixture
def service(service: Service, engine: Engine) -> Service:
    """Have students s1 to s5 and courses c10 to c14."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE students SET sis_id = 's' || id"))
        connection.execute(text("UPDATE courses SET sis_id = 'c' || id"))
        for table in ("students", "courses"):
            connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)"))
    return service


@pytest.fixture
def work(service: Service, redis_client: Connection) -> Callable[[], int]:
    """Give a function that does what a worker does: applies what is on the queue; returns how many messages.

    Taken in one step: what another process puts there meanwhile is left for the next call.
    """

    def drain() -> int:
        taken = [cast("list[str] | None", redis_client.rpop(queue, MANY)) or [] for queue in (QUEUE, BULK_QUEUE)]
        found = [json.loads(entry) for entries in taken for entry in entries]
        for entry in found:
            headers, content = entry["headers"], body(entry)
            service.handle([Message(headers["task"], headers["id"], headers["id"], *content[:2])])
        return len(found)

    return drain


@pytest.fixture
def imported(run: Run, work: Callable[[], int], tmp_path: Path) -> Import:
    """Give a function that imports a path and returns how that ended, with the report."""

    def invoke(path: Path | str, *options: object) -> tuple[Result, list[dict[str, str]]]:
        sent = run("import", *([path] if path else []), *options, "--no-wait", "--json")
        if sent.code in (1, 2):
            return sent, []
        work()
        report = tmp_path / "report.csv"
        done = run("import", "--apply", sent.json["id"], "--json", "--report", report)
        with report.open(newline="") as lines:
            return done, list(csv.DictReader(lines))

    return invoke


def canvas(path: Path, *rows: str) -> Path:
    return write(path / "enrollments.csv", HEADER, *rows)


def oneroster(path: Path, mode: str, *rows: str) -> Path:
    folder = path / f"oneroster-{mode}-{len(list(path.iterdir()))}"
    folder.mkdir()
    write(folder / "manifest.csv", "propertyName,value", "oneroster.version,1.2", f"file.enrollments,{mode}")
    write(folder / "enrollments.csv", ONEROSTER, *rows)
    return folder


def told(report: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(row["line"], row["outcome"], row["code"]) for row in report]


def pairs(rows: Rows) -> list[tuple[int, int]]:
    return [(student, course) for student, course in rows("student_id, course_id", "student_courses")]


@pytest.fixture
def members(imported: Import, tmp_path: Path) -> None:
    """Have s1 to s5 in c10, and s1 in c11, by a canvas file."""
    path = canvas(tmp_path, *(f"c10,s{n},student,,active" for n in range(1, 6)), "c11,s1,student,,active")
    assert imported(path, "--issued-at", OLDER)[0].code == 0


FOUR = tuple(f"{n},c10,s{n},student,,,," for n in range(1, 5))
