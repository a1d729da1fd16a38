"""What the verbs that read show, and what they say when nobody answers."""

import json
import signal
import subprocess
from uuid import UUID

import pytest
from redis import Redis as RedisClient
from sqlalchemy import Engine, text

from enrollment.errors import DeadLetterCode
from enrollment.names import ENROLL
from models.dead_letters import NewDeadLetter
from tests.integration.cli.conftest import ID, Result, Run, start
from tests.integration.conftest import message
from worker.local.postgres import Postgres
from worker.local.redis import Redis
from worker.service import Service


def test_courses_students_and_their_pages(run: Run, processed: Service) -> None:
    assert run("courses-of", 1).rows == [["10", "-", "C10", ""], ["12", "-", "C12", ""]]
    assert [course["id"] for course in run("courses-of", 1, "--json").json_lines] == [10, 12]
    assert run("students-in", 12).rows == [["1", "-", "S1"]]
    page = run("students", "--limit", 2)
    assert page.rows == [["1", "-", "S1", "C10, C12"], ["2", "-", "S2", "-"]]
    assert page.error == "There are more: --after 2 shows the next.\n"
    assert [row[0] for row in run("students", "--after", 2).rows] == ["3", "4", "5"]
    assert run("students", "--json").json_lines[0]["courses"][0]["code"] == "C10"


def test_none_is_an_answer_and_unknown_is_an_error(run: Run, processed: Service) -> None:
    assert run("courses-of", 2) == Result(0, "", "Student 2 is enrolled in no course.\n")
    assert run("students-in", 13) == Result(0, "", "No student is enrolled in course 13.\n")
    assert run("courses-of", 77).error == (
        "Error: There is no student 77; check the id, or load the student with `catalog load`.\n"
    )
    assert run("students-in", 77).code == run("history", 1, 77).code == run("command", UUID(int=0)).code == 1


def test_command_shows_what_was_asked_and_what_came_of_it(run: Run, processed: Service) -> None:
    shown = dict(run("command", ID).rows)
    assert (shown["asked"], shown["outcome"], shown["enrolled"]) == ("enroll", "applied", "10, 11")
    assert run("command", ID, "--json").json["processed_at"].endswith("Z")


def test_history_tells_why_a_pair_is_as_it_is(run: Run, processed: Service) -> None:
    *entries_, sentence = run("history", 1, 10).rows
    assert [(asked, effect) for _, asked, _, effect in entries_] == [
        ("enroll", "enrolled"),
        ("unenroll", "superseded"),
        ("replace", "*unchanged"),
    ]
    assert sentence == ["Student 1 is enrolled in course 10: so says the newest command for it, marked *."]
    assert [entry["owns"] for entry in run("history", 1, 10, "--json").json_lines] == [False, False, True]
    assert len(run("history", 1, 10, "--last", 1).rows) == 2


def test_history_tells_of_a_deletion_also_when_the_id_is_gone(run: Run, processed: Service, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM student_courses WHERE course_id = 10"))
    shown = run("history", 1, 10).rows
    assert (shown[-2][1], shown[-2][3]) == ("the row was deleted from the table", "*unenrolled")
    sentence = "Student 1 is not enrolled in course 10: the row was deleted from the table"
    assert shown[-1] == [f"{sentence}, after all that was commanded, as marked *."]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM courses WHERE id = 10"))
    gone = run("history", 1, 10)
    assert (gone.code, gone.rows, gone.error.split(";")[0]) == (0, shown, "There is no course 10")
    newest = run("history", 1, 10, "--json").json_lines[-1]
    assert (newest["source"], newest["taken_because"]) == ("database:row-deleted", "the row was deleted from the table")
    assert dict(run("command", newest["command_id"]).rows)["taken because"] == newest["taken_because"]


def test_events_are_shown_as_lines_and_as_they_are(run: Run, processed: Service) -> None:
    assert [line.split(" ", 1)[1] for line in run("events").output.splitlines()] == [
        "applied   enroll student 1: enrolled 10, 11",
        "applied   replace student 1: enrolled 12; unenrolled 11; unchanged 10",
        "applied   unenroll student 1: superseded 10",
        "rejected  enroll student 1: unknown_courses",
    ]
    [newest] = run("events", "--last", 1, "--json").json_lines
    assert newest["type"] == "enrollment.rejected.v1"


def test_no_events_yet(run: Run) -> None:
    assert run("events") == Result(0, "", "There are no events yet.\n")


def test_what_is_no_event_is_left_out_with_a_line(run: Run, processed: Service, redis_client: RedisClient) -> None:
    for fields in ({"other": "x"}, {"event": "null"}, {"event": b"\xff"}):
        redis_client.xadd("enrollment.events", fields)  # type: ignore[arg-type]
    for options in ([], ["--json"]):
        shown = run("events", "--last", 4, *options)
        assert (shown.code, len(shown.output.splitlines())) == (0, 1)
        assert [line.endswith("it is left out.") for line in shown.error.splitlines()] == [True] * 3


def test_events_follows_until_it_is_interrupted(variables: dict[str, str], service: Service) -> None:
    service.handle([message(ENROLL, 1, [10])])
    with start(variables, "events", "--follow", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["data"]["course_ids"] == [10]
        service.handle([message(ENROLL, 2, [11])])
        assert json.loads(follower.stdout.readline())["data"]["course_ids"] == [11]
        follower.send_signal(signal.SIGINT)
        _, error = follower.communicate(timeout=10)
    assert (follower.returncode, error) == (130, "")


def test_a_reader_that_hangs_up_is_no_error(variables: dict[str, str], processed: Service) -> None:
    with start(variables, "events", "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        follower.stdout.readline()
        follower.stdout.close()
        processed.handle([message(ENROLL, 1, [10]), message(ENROLL, 2, [10])])
        assert follower.stderr.read() == ""
        follower.wait(10)


def test_dead_letters_are_counted_by_code_and_shown(run: Run, service: Service) -> None:
    assert run("dead-letters", "list").output == "There are no dead letters.\n"
    service.dead_letter(
        [
            NewDeadLetter("a", DeadLetterCode.NOT_A_MESSAGE, "It is not JSON.", "hello\x1b[2J", headers={"x": 1}),
            NewDeadLetter("b", DeadLetterCode.UNKNOWN_TASK, "There is no such task.", "{}", task="t"),
            NewDeadLetter("c", DeadLetterCode.UNKNOWN_TASK, "There is no such task.", "{}", task="u"),
        ]
    )
    listed = run("dead-letters", "list", "--json").json
    assert listed["counts"] == {"unknown_task": 2, "not_a_message": 1}
    assert [letter["code"] for letter in listed["newest"]] == ["unknown_task", "unknown_task", "not_a_message"]
    [count, newest] = run("dead-letters", "list", "--code", "not_a_message").rows
    assert count[:2] == ["not_a_message", "1"]
    shown = dict(run("dead-letters", "show", newest[0]).rows)
    assert (shown["payload"], shown["headers"]) == ("hello\\x1b[2J", '{"x": 1}')
    assert run("dead-letters", "show", 999).error.startswith("Error: There is no dead letter 999;")


@pytest.mark.parametrize("verb", [["students"], ["command", ID], ["dead-letters", "list"]])
def test_a_database_that_is_away_is_one_sentence(run: Run, postgres: Postgres, verb: list[str]) -> None:
    postgres.stop()
    done = run(*verb)
    assert (done.code, done.output) == (1, "")
    assert done.error.startswith("Error: The database did not answer as it should (connection failed")
    assert len(done.error.splitlines()) == 1
    assert postgres.password not in done.error


def test_a_redis_that_is_away_is_one_sentence(run: Run, redis: Redis) -> None:
    redis.stop()
    done = run("events")
    assert (done.code, len(done.error.splitlines())) == (1, 1)
    assert done.error.startswith("Error: Redis did not answer as it should")


def test_debug_shows_the_traceback(variables: dict[str, str]) -> None:
    broken = {**variables, "ENROLLMENT_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"}
    for extra, arguments in (({}, ["--debug"]), ({"ENROLLMENT_DEBUG": "1"}, [])):
        process = start({**broken, **extra}, *arguments, "students", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, error = process.communicate(timeout=30)
        assert (process.returncode, output) == (1, "")
        assert "Traceback" in error
