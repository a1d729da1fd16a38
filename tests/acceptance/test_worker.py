import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from jsonschema import Draft202012Validator

from enrollment.schema import FOLDER
from tests.acceptance.conftest import UNKNOWN, Outside, envelope
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
ENROLL, UNENROLL, REPLACE = (f"enrollment.{verb}.v1" for verb in ("enroll", "unenroll", "replace"))
APPLY = "enrollment.apply.v1"


def test_a_foreign_message_is_applied_recorded_and_told(outside: Outside) -> None:
    student = outside.new_student()
    id_ = outside.send(ENROLL, student_id=student, course_ids=[102, 101], source="portal")
    event = outside.event(id_)
    Draft202012Validator(json.loads((FOLDER / "enrollment.event.v1.json").read_text())).validate(event)
    assert event["type"] == "enrollment.applied.v1"
    assert event["subject"] == f"students/{student}"
    assert event["data"]["enrolled"] == [101, 102]
    assert outside.courses_of(student) == [101, 102]
    [row] = outside.rows("SELECT outcome, source, enrolled FROM commands WHERE command_id = %s", id_)
    assert row == {"outcome": "applied", "source": "portal", "enrolled": [101, 102]}
    eventually(outside.drained)


def test_positional_arguments_mean_the_same(outside: Outside) -> None:
    student = outside.new_student()
    outside.event(outside.send(ENROLL, student, [101, 102, 103]))
    assert outside.event(outside.send(UNENROLL, student, [102]))["data"]["unenrolled"] == [102]
    event = outside.event(outside.send(REPLACE, student, [103, 104]))
    assert {name: event["data"][name] for name in ("enrolled", "unenrolled", "unchanged")} == {
        "enrolled": [104],
        "unenrolled": [101],
        "unchanged": [103],
    }
    outside.event(outside.send(REPLACE, student, []))
    assert outside.courses_of(student) == []


def test_a_stock_celery_client_needs_to_know_the_names_only(outside: Outside) -> None:
    student = outside.new_student()
    client = Celery("somebody", broker=outside.stack.broker_url, set_as_current=False)
    with client.connection_for_write() as connection:
        sent = client.send_task(ENROLL, (student,), {"course_ids": [101]}, queue="enrollment", connection=connection)
        outside.event(str(sent.id))
    assert outside.courses_of(student) == [101]


def test_a_countdown_of_a_stock_celery_client_is_heeded_and_told(outside: Outside) -> None:
    student = outside.new_student()
    client = Celery("somebody", broker=outside.stack.broker_url, set_as_current=False)
    with client.connection_for_write() as connection:
        said = {"course_ids": [101]}
        sent = client.send_task(ENROLL, (student,), said, queue="enrollment", connection=connection, countdown=5)
    waiting = outside.event(str(sent.id))
    assert waiting["type"] == "enrollment.waiting.v1"
    assert outside.courses_of(student) == []
    validator = Draft202012Validator(json.loads((FOLDER / "enrollment.event.v1.json").read_text()))
    validator.validate(waiting)
    _, applied = eventually(lambda: [both for both in [outside.events_of(str(sent.id))] if len(both) == 2])[0]
    assert (applied["type"], applied["data"]["issued_at"]) == ("enrollment.applied.v1", waiting["data"]["until"])
    assert applied["time"] >= waiting["data"]["until"]
    assert outside.courses_of(student) == [101]
    eventually(outside.drained)


def test_a_repeat_is_done_and_told_once(outside: Outside) -> None:
    student = outside.new_student()
    id_ = str(uuid4())
    for _ in range(5):
        outside.send(ENROLL, student, [101], id_=id_)
    last = outside.send(ENROLL, student, [102])
    outside.event(last)
    outside.event(id_)
    assert len(outside.rows("SELECT FROM commands WHERE command_id = %s", id_)) == 1


def test_a_late_older_command_does_not_undo_a_newer_one(outside: Outside) -> None:
    student = outside.new_student()
    outside.send(UNENROLL, student, [101], issued_at="2026-03-02T00:00:00Z")
    late = outside.send(ENROLL, student, [101, 102], issued_at="2026-03-01T00:00:00+01:00")
    data = outside.event(late)["data"]
    assert (data["superseded"], data["enrolled"]) == ([101], [102])
    assert data["issued_at"] == "2026-02-28T23:00:00Z"


def test_rejections_carry_a_code_a_message_and_every_id(outside: Outside) -> None:
    student = outside.new_student()
    event = outside.event(outside.send(ENROLL, student, [UNKNOWN, 101, UNKNOWN + 1]))
    [error] = event["data"]["errors"]
    assert (event["type"], error["code"]) == ("enrollment.rejected.v1", "unknown_courses")
    assert error["ids"] == [UNKNOWN, UNKNOWN + 1]
    assert outside.courses_of(student) == []
    event = outside.event(outside.send(ENROLL, UNKNOWN, [101]))
    assert [e["code"] for e in event["data"]["errors"]] == ["unknown_student"]
    event = outside.event(outside.send(ENROLL, student, [101], issued_at="2999-01-01T00:00:00Z"))
    assert [e["code"] for e in event["data"]["errors"]] == ["issued_in_future"]


def test_an_invalid_command_is_rejected_and_kept(outside: Outside) -> None:
    id_ = outside.send(ENROLL, student_id=True, course_id=101)
    data = outside.event(id_)["data"]
    assert (data["student_id"], data["course_ids"]) == (None, None)
    for field in ("student_id", "course_ids", "course_id"):
        assert field in data["errors"][0]["message"]
    assert outside.dead_letter(id_)["code"] == "invalid_command"


def test_one_message_may_carry_many_commands(outside: Outside) -> None:
    student = outside.new_student()
    ids = [str(uuid4()) for _ in range(3)]
    outside.send(
        APPLY,
        queue="enrollment.bulk",
        commands=[
            {"command_id": ids[0], "command": "enroll", "student_id": student, "course_ids": [101, 102]},
            {"command_id": ids[1], "command": "unenroll", "student_id": student, "course_ids": [UNKNOWN]},
            {"command_id": ids[2], "command": "unenroll", "student_id": student, "course_ids": [102]},
        ],
    )
    assert [outside.event(id_)["type"].split(".")[1] for id_ in ids] == ["applied", "rejected", "applied"]
    assert outside.courses_of(student) == [101]


def test_the_same_id_with_other_content_is_a_dead_letter(outside: Outside) -> None:
    student = outside.new_student()
    id_ = outside.send(ENROLL, student, [101])
    outside.event(id_)
    outside.send(ENROLL, student, [102], id_=id_)
    assert outside.dead_letter(id_)["code"] == "command_id_reused"
    assert outside.courses_of(student) == [101]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("this is not JSON", "not_a_message"),
        (["a", "list"], "not_a_message"),
        (envelope("not-a-uuid", ENROLL, "W1sxLCBbMV1dLCB7fSwge31d"), "command_id_missing"),
        (envelope(str(uuid4()), "no.such.task", "W1tdLCB7fSwge31d"), "unknown_task"),
        (envelope(str(uuid4()), ENROLL, "bm90IGpzb24="), "undecodable_body"),
    ],
)
def test_what_is_no_command_is_kept_and_stops_nothing(outside: Outside, message: object, code: str) -> None:
    before = outside.rows("SELECT FROM dead_letters WHERE code = %s", code)
    outside.push(message)
    student = outside.new_student()
    outside.event(outside.send(ENROLL, student, [101]))
    eventually(lambda: len(outside.rows("SELECT FROM dead_letters WHERE code = %s", code)) == len(before) + 1)
    eventually(outside.drained)


def test_events_that_a_killed_worker_left_behind_are_relayed(outside: Outside) -> None:
    """The outbox row is put there by hand, as a worker leaves it that is killed between commit and publishing."""
    student = outside.new_student()
    id_ = outside.send(ENROLL, student, [101])
    outside.event(id_)
    outside.redis.delete("enrollment.events")
    with outside.database.transaction():
        outside.database.execute(
            "INSERT INTO outbox (batch_id, command_ids) VALUES (gen_random_uuid(), ARRAY[%s::uuid])", (id_,)
        )
    assert outside.event(id_)["data"]["enrolled"] == [101]
    eventually(outside.drained)


def test_flower_shows_the_true_state_of_each_command(outside: Outside) -> None:
    student = outside.new_student()
    applied = outside.send(ENROLL, student, [101])
    rejected = outside.send(ENROLL, student, [UNKNOWN])
    broken = outside.send(ENROLL, student, [101], id_=f"no-uuid-{student}")
    shown = {applied: ("SUCCESS", "applied"), rejected: ("SUCCESS", f"rejected unknown_courses [{UNKNOWN}]")}
    shown[broken] = ("FAILURE", "dead letter command_id_missing")

    def states() -> dict[str, tuple[str, str]]:
        with urllib.request.urlopen(f"{outside.stack.flower_url}/api/tasks?limit=1000", timeout=20) as answer:  # noqa: S310
            tasks = json.load(answer)
        return {id_: (it["state"], str(it["result"] or it["exception"]).strip("'")) for id_, it in tasks.items()}

    eventually(lambda: shown.items() <= states().items())


def test_without_its_settings_it_says_in_one_sentence_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENROLLMENT_")}
    for given, missing in (
        ({}, "ENROLLMENT_BROKER_URL"),
        ({"ENROLLMENT_BROKER_URL": "redis://h"}, "ENROLLMENT_DATABASE_URL"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "worker", "worker"],
            env=environment | given,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert f"{missing} is not set; set it to" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_wrong_secret_is_not_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "worker"],
        env=os.environ | {"ENROLLMENT_BROKER_URL": "http://user:hunter2@h"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ENROLLMENT_BROKER_URL must start with redis://" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
