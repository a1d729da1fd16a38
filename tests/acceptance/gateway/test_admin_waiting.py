"""Commands that wait, on the admin page, as a browser without scripts sends its forms."""

import re
from datetime import UTC, datetime

import httpx

from enrollment.client import Client
from models import audit
from tests.admin import NAME, submit
from tests.eventually import eventually
from tests.gateway import Backend

LATER = datetime(2999, 1, 1, tzinfo=UTC)
PAGE = "/admin/waiting"


def test_waits_are_ended_and_commands_withdrawn_and_who_did_it_is_known(admin: httpx.Client, backend: Backend) -> None:
    course = 60_001  # of no other test
    with Client(backend.redis.url) as client:
        withdrawn, released = (client.enroll(backend.new_student(), [course], wait_until=LATER) for _ in range(2))

        def outcome(command_id: object) -> object:
            return admin.get(f"/commands/{command_id}").json().get("outcome")

        eventually(lambda: {outcome(withdrawn), outcome(released)} == {"waiting"})
        waits = r"for a student or course</dt><dd>[1-9]"
        eventually(lambda: re.search(waits, admin.get("/admin").text), patience=90)  # the overview keeps its answers
        shown = admin.get(PAGE, params={"course": course}).text
        assert f"course {course}" in shown
        assert str(withdrawn) in shown
        answer = submit(admin, PAGE, f"{PAGE}/withdraw", command=str(withdrawn))
        assert f"A worker is told to withdraw {withdrawn}." in answer.text
        eventually(lambda: outcome(withdrawn) == "withdrawn")
        answer = submit(admin, PAGE, f"{PAGE}/release", course=str(course))
        assert "1 command waits no longer." in answer.text
        eventually(lambda: outcome(released) == "rejected")
    with backend.engine.connect() as connection:
        [ended, ending] = audit.newest(connection, limit=2)
    assert (ended.who, ended.action, ended.subject) == (f"admin/{NAME}", "wait.ended", f"courses/{course}")
    assert (ending.who, ending.action, ending.subject) == (
        f"admin/{NAME}",
        "command.withdrawn",
        f"commands/{withdrawn}",
    )
    assert outcome_of_withdraw(admin, str(ending.command_ids[0])) == ("applied", f"admin/{NAME}")
    assert f"/admin/commands/{withdrawn}" in admin.get("/admin/audit").text


def outcome_of_withdraw(admin: httpx.Client, command_id: str) -> tuple[str, str]:
    found = admin.get(f"/commands/{command_id}").json()
    return found["outcome"], found["source"]
