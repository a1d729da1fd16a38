"""The examples, as they are, against the real worker; and the bytes that docs/messages.md shows."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import cast
from uuid import UUID

import pytest

from enrollment.commands import Enroll, Replace, Unenroll, parse_time
from tests.acceptance.conftest import STREAM, Outside
from tests.documented import blocks
from tests.unit.copies import Rows, apply, rows_of
from tests.unit.strategies import COURSES, NOW, empty_state
from tests.waiting import eventually
from worker.client import Client
from worker.local.process import Child
from worker.local.stack import ROOT, environment

EXAMPLES = ROOT / "examples"
PLAIN = EXAMPLES / "shell" / "enroll.sh"
INSTALL = 30.0  # seconds that npm is given
COMMANDS = 600


def run(
    command: Sequence[str | Path], outside: Outside, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    env = environment({**outside.stack.variables, **variables})
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)


# --- the documented bytes


def test_the_documented_entry_is_accepted_and_the_documented_event_is_published(outside: Outside) -> None:
    outside.database.execute("INSERT INTO students (id, name) VALUES (42, 'S')")
    outside.database.execute("INSERT INTO student_courses (student_id, course_id) VALUES (42, 102)")
    [entry], [event, *_] = blocks("list-entry"), blocks("stream-entry")
    outside.push(entry)
    expected = json.loads(event)
    outside.event(expected["id"])
    stream = cast("list[tuple[str, dict[str, str]]]", outside.redis.xrange(STREAM))
    [written] = [fields for _, fields in stream if expected["id"] in str(fields)]
    assert list(written) == ["event"]
    time = re.compile(r'"time":"[^"]+"')
    assert time.sub("", written["event"]) == time.sub("", event)


# --- the shell


@pytest.fixture(params=["redis-cli", "bash alone"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a PATH with redis-cli, or without."""
    path = os.environ["PATH"]
    if request.param == "redis-cli":
        if shutil.which("redis-cli") is None:
            pytest.skip("redis-cli is not on this machine; bash alone is tested")
        return path
    for name in ("base64", "bash", "cat", "date", "dirname", "env", "tr"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    return str(tmp_path)


def test_the_shell_sends_a_command_and_sees_what_comes_of_it(outside: Outside, path: str) -> None:
    student = str(outside.new_student())
    applied = run([PLAIN, "enroll", student, "101", "102"], outside, PATH=path)
    assert (applied.returncode, applied.stderr) == (0, "")
    assert json.loads(applied.stdout)["data"]["enrolled"] == [101, 102]
    rejected = run([PLAIN, "replace", student, "999"], outside, PATH=path)
    assert (rejected.returncode, rejected.stderr) == (1, "")
    assert json.loads(rejected.stdout)["data"]["errors"][0]["ids"] == [999]
    assert outside.courses_of(int(student)) == [101, 102]


@pytest.mark.parametrize("without", ["nothing", "EPOCHREALTIME"])
def test_the_later_of_two_commands_from_a_shell_is_the_one_that_counts(
    outside: Outside, path: str, tmp_path: Path, without: str
) -> None:
    before = tmp_path / "before.sh"
    before.write_text(f"unset {without}\n")
    student = str(outside.new_student())
    for _ in range(5):
        for command in ("enroll", "unenroll"):
            sent = run([PLAIN, command, student, "101"], outside, PATH=path, BASH_ENV=str(before))
            assert (sent.returncode, sent.stderr) == (0, "")
            assert re.search(r'"issued_at":"[^"]+:\d\d\.\d{6}Z"', sent.stdout)
            assert json.loads(sent.stdout)["data"]["superseded"] == []
        assert outside.courses_of(int(student)) == []


def test_a_shell_that_knows_whole_seconds_only_says_so(outside: Outside, tmp_path: Path) -> None:
    before, date = tmp_path / "before.sh", tmp_path / "date"
    before.write_text("unset EPOCHREALTIME\n")
    date.write_text(f'#!/bin/sh\nexec {shutil.which("date")} "$1" "$(echo "$2" | sed s/%6N/6N/)"\n')
    date.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    sent = run([PLAIN, "enroll", str(outside.new_student()), "101"], outside, PATH=path, BASH_ENV=str(before))
    assert sent.returncode == 0
    assert sent.stderr.startswith("This machine tells whole seconds only")
    assert re.search(r'"issued_at":"[^".]+:\d\dZ"', sent.stdout)


def test_the_shell_says_how_to_send_again_when_redis_is_away(outside: Outside, path: str) -> None:
    nobody = "redis://127.0.0.1:1/0"
    failed = run([PLAIN, "enroll", "1", "101"], outside, PATH=path, ENROLLMENT_BROKER_URL=nobody)
    assert failed.returncode == 2
    assert "Nothing was sent" in failed.stderr


# --- JavaScript


@pytest.fixture(scope="module")
def node(server_folder: Path) -> Path:
    """Give the example with its packages; they are fetched once, within seconds, or the tests are skipped."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not on this machine")
    folder = server_folder / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    cache = Path(tempfile.gettempdir()) / f"enrollment-npm-{os.getuid()}"
    install = ["npm", "ci", "--silent", "--prefer-offline", "--cache", str(cache)]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=INSTALL, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not bring the packages within {INSTALL:.0f} s")
    if done.returncode:
        pytest.skip(f"npm could not bring the packages: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.parametrize("folder", ["examples/node", ".ci/asyncapi"])
def test_the_lock_files_hold_hashes_and_no_addresses_of_a_registry(folder: str) -> None:
    packages = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    assert all("integrity" in it and "resolved" not in it for name, it in packages.items() if name)


def test_javascript_sends_a_command(outside: Outside, node: Path) -> None:
    student = str(outside.new_student())
    sent = run(["node", "producer.js", "enroll", student, "101", "102"], outside, node)
    assert (sent.returncode, sent.stderr) == (0, "")
    event = outside.event(sent.stdout.strip())
    assert (event["data"]["enrolled"], event["data"]["source"]) == ([101, 102], "examples:node")


def test_javascript_sees_that_a_publication_failed_and_sends_the_same_command_again(
    outside: Outside, node: Path
) -> None:
    student = str(outside.new_student())
    failed = run(
        ["node", "producer.js", "replace", student, "103"], outside, node, ENROLLMENT_BROKER_URL="redis://127.0.0.1:1"
    )
    assert failed.returncode == 1
    assert "ECONNREFUSED" in failed.stderr
    again = failed.stderr.splitlines()[-1].split()
    first, second = (run(again, outside, node) for _ in range(2))
    assert first.stdout == second.stdout
    assert outside.event(first.stdout.strip())["data"]["enrolled"] == [103]


STAMPS = """
import { now, uuid7 } from "./stamp.js";
for (let number = 0; number < 5000; number += 1) console.log(`${now()} ${uuid7()}`);
"""


def test_javascript_makes_every_time_later_than_the_one_before() -> None:
    program = [shutil.which("node") or pytest.skip("node is not on this machine"), "--input-type=module", "-e", STAMPS]
    before = datetime.now(UTC)
    done = subprocess.run(program, cwd=EXAMPLES / "node", capture_output=True, text=True, check=True)
    times, ids = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    stamps = [parse_time(time) for time in times]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert timedelta(seconds=-1) < stamps[0] - before < timedelta(minutes=1)
    assert {UUID(it).version for it in ids} == {7}


@pytest.mark.parametrize("program", ["producer.js", "consumer.js"])
@pytest.mark.parametrize("variable", ["ENROLLMENT_BROKER_URL", "ENROLLMENT_EVENTS_URL"])
def test_an_address_that_is_none_is_one_sentence(outside: Outside, node: Path, program: str, variable: str) -> None:
    for url in ("", "localhost:6379"):
        refused = run(["node", program, "enroll", "1", "101"], outside, node, **{variable: url})
        assert (refused.returncode, refused.stdout) == (2, "")
        [sentence] = refused.stderr.splitlines()
        assert sentence.startswith(f"{variable} is no address of a Redis, such as ")


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


# --- copies that are killed


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
