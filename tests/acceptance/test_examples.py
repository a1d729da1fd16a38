"""The examples, as they are, against the real worker; and the bytes that docs/messages.md shows."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from enrollment.commands import parse_time
from tests.acceptance.conftest import STREAM, Outside
from tests.documented import blocks
from tests.root import ROOT
from tests.tools import require_tool
from worker.local.stack import environment

EXAMPLES = ROOT / "examples"
PLAIN = EXAMPLES / "shell" / "enroll.sh"


def run(
    command: Sequence[str | Path], outside: Outside, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    env = environment({**outside.stack.variables, **variables})
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)


# --- the documented bytes


def test_the_documented_entry_is_accepted_and_the_documented_event_is_published(outside: Outside) -> None:
    outside.database.execute("INSERT INTO students (id, name) VALUES (42, 'S')")
    outside.database.execute("INSERT INTO student_courses (student_id, course_id) VALUES (42, 102)")
    [entry] = blocks("list-entry")
    outside.push(entry)
    [event] = [text for text in blocks("stream-entry") if json.loads(text)["type"] == APPLIED]
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
        require_tool("redis-cli", "redis-tools")
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


APPLIED = "enrollment.applied.v1"

STAMPS = """
import { now, uuid7 } from "./stamp.js";
for (let number = 0; number < 5000; number += 1) console.log(`${now()} ${uuid7()}`);
"""


def test_javascript_makes_every_time_later_than_the_one_before() -> None:
    program = [require_tool("node", "nodejs"), "--input-type=module", "-e", STAMPS]
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
