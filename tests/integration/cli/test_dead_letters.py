from pathlib import Path

from redis import Redis

from enrollment.names import ENROLL, QUEUE
from tests.integration.cli.conftest import Run
from tests.integration.conftest import message
from worker.service import Service


def test_a_corrected_dead_letter_goes_back_to_the_queue(
    run: Run, service: Service, redis_client: Redis, tmp_path: Path
) -> None:
    service.handle([message(ENROLL, student_id=1, course_id=10)])
    [letter] = run("dead-letters", "list", "--json").json["newest"]
    refused = run("dead-letters", "replay", letter["id"])
    assert refused.code == 1
    assert "course_ids is missing" in refused.output
    corrected = tmp_path / "corrected.json"
    corrected.write_text('{"student_id": 1, "course_ids": [10]}')
    done = run("dead-letters", "replay", letter["id"], "--payload", corrected, "--json")
    assert (done.code, len(done.json["replayed"][str(letter["id"])])) == (0, 1)
    assert redis_client.llen(QUEUE) == 1
    assert run("dead-letters", "list").output == "There are no dead letters.\n"
    assert dict(run("dead-letters", "show", letter["id"]).rows)["replayed at"] != "-"


def test_a_group_is_replayed_or_discarded_at_once(run: Run, service: Service, redis_client: Redis) -> None:
    first, *others = [message(ENROLL, n, [10], task_id="0190f3a2-0000-7000-8000-000000000001") for n in (1, 2, 3)]
    service.handle([first, *others, message(ENROLL, 1, [10], task_id="no uuid"), message(ENROLL, 1, "x")])
    assert run("dead-letters", "replay", "--code", "command_id_reused").output.count("sent as") == 2
    assert redis_client.llen(QUEUE) == 2
    assert run("dead-letters", "discard", "--all").output == "Discarded 2 of 2.\n"
    assert run("dead-letters", "replay", "--all").output == ""


def test_which_ones_has_to_be_said(run: Run) -> None:
    assert run("dead-letters", "discard").code == run("dead-letters", "replay", 1, "--all").code == 2
    assert run("dead-letters", "discard", 5).output == "Discarded 0 of 1.\n"
