"""The examples that keep a copy of the enrollments: it becomes what the database says, whatever kills them."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from enrollment.client import Client
from enrollment.commands import Enroll, Replace, Unenroll
from tests.acceptance.conftest import Outside
from tests.eventually import eventually
from tests.root import ROOT
from tests.unit.copies import Rows, apply, rows_of
from tests.unit.strategies import COURSES, NOW, empty_state
from worker.local.process import Child
from worker.local.stack import environment

EXAMPLES = ROOT / "examples"
COMMANDS = 600

FOLLOW = """
import { readFileSync } from "node:fs";
import { Copy, parse } from "./copy.js";
const copy = new Copy("shuffled.json");
for (const line of readFileSync(0, "utf8").trim().split("\\n")) copy.take(parse(line));
copy.save();
"""


def test_javascript_follows_the_events_in_any_order(node: Path) -> None:
    random = Random(11)  # noqa: S311 - any order will do
    verbs = [random.choice([Enroll, Unenroll, Replace]) for _ in range(300)]
    times = (NOW - random.randrange(50) * timedelta(microseconds=500_000) for _ in verbs)
    courses = (random.sample(COURSES, random.randint(1, 3)) for _ in verbs)
    sent = [
        verb(command_id=UUID(int=random.getrandbits(128)), student_id=1, course_ids=tuple(ids), issued_at=at)
        for verb, ids, at in zip(verbs, courses, times, strict=True)
    ]
    state, events = apply(empty_state(), sent)
    lines = random.choices(events, k=100) + random.sample(events, len(events))
    text = "\n".join(event.to_json() for event in lines)
    program = [shutil.which("node") or "node", "--input-type=module", "-e", FOLLOW]
    subprocess.run(program, cwd=node, input=text, text=True, check=True)
    assert pairs_of(node / "shuffled.json") == rows_of(state.students)


@pytest.fixture
def waves(outside: Outside) -> Iterator[Callable[[], Rows]]:
    """Give a function that sends many commands, of any order, for some students; and what the rows are in the end."""
    random, students = Random(7), [outside.new_student() for _ in range(20)]  # noqa: S311 - any order will do
    begin = datetime.now(UTC) - timedelta(hours=1)

    with Client(outside.stack.broker_url) as client:

        def send() -> Rows:
            with client.bulk() as bulk:
                for _ in range(COMMANDS):
                    verb = random.choice([bulk.enroll, bulk.enroll, bulk.unenroll, bulk.replace])
                    at = begin + timedelta(seconds=random.randrange(3000))
                    verb(random.choice(students), random.sample(range(101, 121), 3), issued_at=at)
            eventually(outside.drained)
            query = "SELECT student_id, course_id FROM student_courses WHERE student_id = ANY(%s)"
            return {(row["student_id"], row["course_id"]) for row in outside.rows(query, students)}

        yield send


def kill_and_kill_again(copy: Child, progress: Callable[[], object], waves: Callable[[], Rows]) -> Rows:
    """Start the copy and kill it as soon as it gets on, twice, then let it run. Return what it must become."""
    wanted = waves()
    for _ in range(2):
        before = progress()
        copy.start()
        eventually(partial(differs, progress, before))
        copy.kill()
        wanted = waves()
    copy.start()
    return wanted


def differs(progress: Callable[[], object], before: object) -> bool:
    return progress() != before


def test_a_copy_in_sqlite_can_begin_with_the_rows(outside: Outside, tmp_path: Path) -> None:
    student = outside.new_student()  # with rows that no event tells of
    add = "INSERT INTO student_courses (student_id, course_id) VALUES (%s, 101), (%s, 102)"
    outside.database.execute(add, (student, student))
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{student},{course}\n" for course in outside.courses_of(student)))
    outside.event(outside.send("enrollment.unenroll.v1", student, [101]))
    file = tmp_path / "copy.sqlite"
    program = [sys.executable, str(EXAMPLES / "python" / "copy_to_sqlite.py"), str(file), "--begin-with", str(rows)]
    copy = child(program, outside.stack.variables, tmp_path)
    copy.start()
    try:
        query = f"SELECT course_id FROM enrollments WHERE student_id = {student}"
        eventually(lambda: ask(file, query) == [(102,)])
    finally:
        copy.kill()


def ask(file: Path, query: str) -> list[tuple[int, ...]]:
    """Return what a copy in SQLite holds; nothing while it has no tables."""
    with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.OperationalError):
        return connection.execute(query).fetchall()
    return []


def pairs_of(file: Path) -> Rows:
    """Return what a copy of the JavaScript consumer says."""
    held = json.loads(file.read_text()) if file.exists() else {}
    keys = (key.split("/") for key, (enrolled, _) in held.items() if enrolled)
    return {(int(student), int(course)) for student, course in keys}


def of_these(pairs: Rows, wanted: Rows) -> Rows:
    students = {student for student, _ in wanted}
    return {pair for pair in pairs if pair[0] in students}


def test_a_copy_in_sqlite_that_is_killed_converges(outside: Outside, waves: Callable[[], Rows], tmp_path: Path) -> None:
    file = tmp_path / "copy.sqlite"

    program = [sys.executable, str(EXAMPLES / "python" / "copy_to_sqlite.py"), str(file)]
    copy = child(program, outside.stack.variables, tmp_path)
    try:
        wanted = kill_and_kill_again(copy, partial(ask, file, "SELECT entry_id FROM position"), waves)
        eventually(
            lambda: (
                of_these({(s, c) for s, c in ask(file, "SELECT student_id, course_id FROM enrollments")}, wanted)
                == wanted
            )
        )
    finally:
        copy.kill()
    assert "Traceback" not in copy.tail(1000)


def test_a_copy_in_javascript_that_is_killed_converges(
    outside: Outside, node: Path, waves: Callable[[], Rows], tmp_path: Path
) -> None:
    file = tmp_path / "copy.json"

    copy = child(["node", "consumer.js", str(file)], outside.stack.variables, tmp_path, node)
    try:
        wanted = kill_and_kill_again(copy, lambda: file.exists() and file.read_bytes(), waves)
        eventually(lambda: of_these(pairs_of(file), wanted) == wanted)
    finally:
        copy.kill()
    assert "Error" not in copy.tail(1000)


def child(command: Sequence[str], variables: Mapping[str, str], folder: Path, cwd: Path = ROOT) -> Child:
    return Child(name="copy", command=command, log=folder / "copy.log", env=environment(variables), cwd=cwd)
