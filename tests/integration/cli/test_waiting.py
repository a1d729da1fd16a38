"""`enrollment waiting`, and what other verbs say of commands that wait."""

import json
from base64 import b64decode
from typing import Any, cast

import pytest
from redis import Redis

from enrollment.names import ENROLL
from tests.integration.cli.conftest import ID, Run
from tests.integration.conftest import message
from tests.integration.locked import release_all
from worker.service import Service

LATER = "2999-01-01T00:00:00Z"


def test_what_waits_is_listed_shown_and_let_go(run: Run, service: Service) -> None:
    service.handle([message(ENROLL, 1, [98, 99], task_id=ID, wait_until=LATER)])
    for student in (2, 3):
        service.handle([message(ENROLL, student, [99], wait_until=LATER)])
    service.handle([message(ENROLL, 4, [10], effective_at=LATER)])
    listed = run("waiting", "list")
    assert [row[2:] for row in listed.rows[:4]] == [
        ["1", "course 98", LATER],
        ["2", "course 99", LATER],
        ["3", "course 99", LATER],
        ["4", "its time", LATER],
    ]
    assert listed.rows[4] == ["4 commands wait."]
    assert listed.error.splitlines()[0] == "2 commands for course 99"
    page = run("waiting", "list", "--course", 99, "--limit", 1, "--json").json
    assert (page["student_id"], page["reason"]) == (2, "unknown_course")
    assert f"waiting   enroll student 1: for unknown_courses 98, 99; until {LATER}" in run("events").output
    shown = dict(run("waiting", "show", ID).rows)
    assert (shown["outcome"], shown["waiting for"], shown["until"]) == ("waiting", "unknown_courses 98, 99", LATER)
    assert run("waiting", "release", "--course", 99).output.startswith("The wait of 2 commands has ended")
    left = run("waiting", "release", "--student", 99)
    assert (left.code, left.output.split(":")[0]) == (1, "No wait has ended")
    assert run("waiting", "release").code == 2
    service.release()
    assert [row[3] for row in run("waiting", "list").rows[:2]] == ["course 98", "its time"]
    assert run("waiting", "release", ID).code == 0
    while len(run("waiting", "list").rows) > 2:
        service.release()
    assert dict(run("command", ID).rows)["outcome"] == "rejected"


def test_a_command_is_withdrawn_through_the_queue(run: Run, service: Service, redis_client: Redis) -> None:
    asked = run("waiting", "withdraw", ID, "--source", "office", "--timeout", 0)
    assert asked.code == 1
    assert "has no outcome after 0 s" in asked.error
    [entry] = cast("list[str]", redis_client.lrange("enrollment", 0, -1))
    sent: Any = json.loads(entry)
    assert sent["headers"]["task"] == "enrollment.withdraw.v1"
    said = json.loads(b64decode(sent["body"]))[1]
    assert said == {"target": ID, "source": "office"}
    service.handle([message(sent["headers"]["task"], task_id=sent["headers"]["id"], **said)])
    shown = dict(run("command", sent["headers"]["id"]).rows)
    assert (shown["asked"], shown["outcome"], shown["withdraws"]) == ("withdraw", "applied", ID)
    assert dict(run("command", ID).rows)["outcome"] == "withdrawn"
    release_all(service)


def test_a_command_is_sent_to_wait(run: Run, redis_client: Redis) -> None:
    assert run("send", "enroll", "-s", 1, "-c", 99, "--wait-until", LATER, "--effective-at", LATER).code == 0
    [entry] = cast("list[str]", redis_client.lrange("enrollment", 0, -1))
    said = json.loads(b64decode(json.loads(entry)["body"]))[1]
    assert (said["wait_until"], said["effective_at"]) == (LATER, LATER)


def test_a_count_that_was_cut_off_is_not_told_as_if_it_were_all(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.handle([message(ENROLL, 1, [99], wait_until=LATER)])
    assert run("waiting", "list").rows[-1] == ["1 command waits."]
    monkeypatch.setattr("models.awaited.COUNTED", 1)
    assert run("waiting", "list").rows[-1] == ["At least 1 command waits."]
