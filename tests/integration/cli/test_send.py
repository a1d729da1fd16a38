"""`enrollment send`: one command, a file of them, and waiting for the outcome."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as Connection
from sqlalchemy import Engine, text

from enrollment.names import BULK_QUEUE, QUEUE
from tests.eventually import eventually
from tests.integration.cli.conftest import ID, Run, start, write
from tests.integration.test_client import body, entries
from tests.root import ROOT
from worker import checks
from worker.local.redis import Redis
from worker.service import Service


def test_send_puts_a_command_on_the_queue_and_says_its_id(run: Run, redis_client: Connection) -> None:
    sent = run("send", "enroll", "-s", 1, "-c", "10,11", "-c", 12, "--source", "portal", "--json").json
    [entry] = entries(redis_client, QUEUE)
    assert entry["headers"]["id"] == sent["command_id"]
    assert body(entry)[1] == {
        "student_id": 1,
        "course_ids": [10, 11, 12],
        "issued_at": sent["issued_at"],
        "source": "portal",
    }
    assert run("send", "replace", "-s", 1, "--none").output.startswith("Sent ")


def test_send_with_an_id_sends_the_same_again(run: Run, redis_client: Connection) -> None:
    for _ in range(2):
        assert run("send", "enroll", "-s", 1, "-c", 10, "--id", ID).code == 0
    first, second = entries(redis_client, QUEUE)
    assert (first["headers"]["id"], body(first)) == (second["headers"]["id"], body(second))


def test_wait_shows_the_outcome_of_a_command_that_was_processed(run: Run, processed: Service) -> None:
    said = ("--issued-at", "2026-01-31T09:00:00Z", "--source", "portal", "--id", ID)
    done = run("send", "enroll", "-s", 1, "-c", 10, "-c", 11, *said, "--wait", "--json")
    assert (done.code, done.json["outcome"], done.json["enrolled"]) == (0, "applied", [10, 11])


def test_wait_tells_that_the_id_is_anothers(run: Run, processed: Service) -> None:
    done = run("send", "enroll", "-s", 2, "-c", 10, "--id", ID, "--wait")
    assert done.code == 1
    assert f"Another command was processed under the id {ID}" in done.error


def test_wait_gives_up_with_what_to_do(run: Run) -> None:
    done = run("send", "enroll", "-s", 1, "-c", 10, "--wait", "--timeout", 0.2)
    assert done.code == 1
    assert "has no outcome after 0.2 s" in done.error
    assert "enrollment doctor" in done.error


def test_wait_names_the_dead_letter_that_the_command_has_become(run: Run, engine: Engine) -> None:
    with engine.begin() as connection:
        letter = connection.execute(
            text(
                "INSERT INTO dead_letters (message_key, code, message, command_id, payload, headers)"
                " VALUES ('key', 'processing_failed', '', :id, '', '{}') RETURNING id"
            ),
            {"id": ID},
        ).scalar_one()
    done = run("send", "enroll", "-s", 1, "-c", 10, "--id", ID, "--wait", "--timeout", 0.2)
    assert (done.code, f"enrollment dead-letters show {letter}" in done.error) == (1, True)


def test_send_file_sends_what_is_good_and_names_the_lines_that_are_not(
    run: Run, redis_client: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"command": "enroll", "student_id": 1, "course_ids": [10]}\n'
        b"\n"
        b"nonsense\n"
        b'{"command": "replace", "student_id": 2, "course_id": []}\n'
        b"[1]\n"
        b'\xff{"command": "enroll"}\n'
        b'{"command": "unenroll", "student_id": 3, "course_ids": [10], "command_id": "%s"}' % ID.encode()
    )
    done = run("send", path)
    assert done.code == 1
    assert done.output == "Sent 2 commands in 1 message. Left out 4 lines.\n"
    assert [line.split(":")[0] for line in done.error.splitlines()] == [f"line {number}" for number in (3, 4, 5, 6)]
    assert "course_ids is missing" in done.error
    [entry] = entries(redis_client, BULK_QUEUE)
    first, second = body(entry)[1]["commands"]
    assert (first["student_id"], "issued_at" in first) == (1, True)
    assert (second["command_id"], "issued_at" in second) == (ID, False)


def test_send_reads_standard_input(run: Run, redis_client: Connection) -> None:
    lines = "".join(
        json.dumps({"command": "replace", "student_id": n, "course_ids": []}) + "\n" for n in range(1, 1502)
    )
    done = run("send", "--json", "-", stdin=lines)
    assert (done.code, done.json["sent"], done.json["messages"], done.json["invalid"]) == (0, 1501, 2, [])
    assert redis_client.llen(BULK_QUEUE) == 2


def test_send_file_tells_how_far_it_got_when_the_broker_goes_away(
    run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("worker.cli.file.PATIENCE", 0.5)
    path = tmp_path / "commands.jsonl"
    line = json.dumps({"command": "enroll", "student_id": 1, "course_ids": [10]})
    path.write_text((line + "\n") * 10)
    redis.stop()
    done = run("send", path)
    assert done.code == 1
    assert done.error.startswith("No command had been sent before.\nError: The broker at redis://127.0.0.1")


@pytest.fixture
def worker(variables: dict[str, str], service: Service) -> Iterator[None]:
    """Run the real worker beside the test."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **quiet) as process:  # type: ignore[call-overload]
        yield
        process.terminate()


def test_from_a_file_to_the_outcome_with_the_real_worker(
    worker: None, variables: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "c.jsonl", '{"command": "enroll", "student_id": 3, "course_ids": [10, 11]}')
    sender = start(variables, "send", str(path), stdout=subprocess.PIPE)
    assert sender.communicate(timeout=30)[0] == "Sent 1 command in 1 message.\n"
    done = run("send", "enroll", "-s", 2, "-c", 10, "--wait", "--json")
    assert (done.code, done.json["enrolled"]) == (0, [10])
    rejected = run("send", "enroll", "-s", 2, "-c", 99, "--wait")
    assert rejected.code == 1
    assert "error unknown_courses\tThere is no course 99." in rejected.output
    deadline = time.monotonic() + 10
    while not run("courses-of", 3).output and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [row[0] for row in run("courses-of", 3).rows] == ["10", "11"]
    monkeypatch.setattr(checks, "BEAT", 1.0)  # this worker does not wait; a slow one is asked again
    found = eventually(lambda: (it := run("doctor")).code == 0 and it)
    assert found
    assert "versions" not in found.output
    monkeypatch.setattr(checks, "NEWEST", "9999")  # as if this program were of a version to come
    eventually(lambda: "versions\t1 worker of 1 of an older version: celery@" in run("doctor").output)
