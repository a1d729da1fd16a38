"""Imports of which the broker lost commands: sent again when that is said, with what was decided meanwhile in mind."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis as Connection
from sqlalchemy import Engine

from enrollment.commands import format_time
from enrollment.names import BULK_QUEUE
from tests.integration.cli.conftest import Run
from tests.integration.cli.imports.conftest import FOUR, NEWER, OLDER, Import, Rows, canvas, oneroster, pairs
from tests.integration.cli.imports.test_waits import Load, Work
from tests.integration.test_retention import age, everything

Send = Callable[[Path], int]
ANY_DROP = ("--max-drop-percent", 100, "--max-course-drop-percent", 100)
LATER = "5,c10,s5,student,,,2999-01-01,"


@pytest.fixture
def sent(run: Run) -> Send:
    """Give a function that imports a path and returns the id; nobody has processed the commands yet."""
    return lambda path: int(run("import", path, "--issued-at", OLDER, "--no-wait", "--json").json["id"])


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a row in each page."""
    monkeypatch.setattr("models.imports.PAGE", 1)


def students(*numbers: int) -> list[str]:
    return [f"c10,s{number},student,,active" for number in numbers]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("state", ["sending", "sent"])
def test_what_the_broker_lost_is_sent_again_when_it_is_said(
    state: str, run: Run, work: Work, rows: Rows, sent: Send, *, load: Load, redis_client: Connection, tmp_path: Path
) -> None:
    import_id = sent(canvas(tmp_path, *students(1, 2, 3)))
    redis_client.rpop(BULK_QUEUE)  # the first one
    work()
    stuck = run("import", "--apply", import_id, "--timeout", 0.1)
    assert (stuck.code, work(), rows("state", "imports")) == (1, 0, [("sent",)])
    assert "If the broker has lost its queues, add `--again`" in stuck.error
    load(f"UPDATE imports SET state = '{state}'")
    run("import", "--apply", import_id, "--again", "--no-wait")
    assert work() == 1
    for again in ((), ("--again",)):
        done = run("import", "--apply", import_id, *again, "--json")
        assert (done.json["state"], done.json["outcomes"]["enrolled"], work()) == ("done", 3, 0)
    assert rows("DISTINCT issued_at::date::text", "student_courses") == [(OLDER[:10],)]


@pytest.mark.usefixtures("small_pages")
def test_an_import_that_is_decided_to_its_end_is_not_sent_again_however_many_pages_it_has(
    run: Run, work: Work, sent: Send, tmp_path: Path
) -> None:
    import_id = sent(canvas(tmp_path, *students(1, 2, 3, 4)))
    work()
    done = run("import", "--apply", import_id, "--again", "--no-wait", "--json")
    assert (done.json["state"], done.json["outcomes"]["enrolled"], work()) == ("done", 4, 0)


@pytest.mark.parametrize("scope", ["courses", "source"])
def test_who_is_absent_from_a_newer_snapshot_is_not_enrolled_by_what_is_sent_again(
    run: Run,
    work: Work,
    imported: Import,
    rows: Rows,
    sent: Send,
    *,
    redis_client: Connection,
    tmp_path: Path,
    scope: str,
) -> None:
    import_id = sent(canvas(tmp_path, *students(1, 5)))
    redis_client.delete(BULK_QUEUE)
    imported(canvas(tmp_path, *students(1)), "--issued-at", NEWER, "--full", "--scope", scope, *ANY_DROP)
    run("import", "--apply", import_id, "--again", "--no-wait")
    assert work() == 1
    done = run("import", "--apply", import_id, "--json").json
    assert (done["state"], done["counts"], pairs(rows)) == ("done", {"enroll": 1, "superseded": 1}, [(1, 10)])


def test_a_dead_letter_that_was_discarded_is_not_sent_again(
    run: Run, work: Work, rows: Rows, sent: Send, *, load: Load, tmp_path: Path
) -> None:
    load("ALTER TABLE student_courses ADD CONSTRAINT for_now CHECK (student_id <> 2)")
    import_id = sent(canvas(tmp_path, *students(1, 2)))
    work()
    load("ALTER TABLE student_courses DROP CONSTRAINT for_now")
    load("DELETE FROM commands; DELETE FROM student_courses; DELETE FROM tombstones")  # as if the first was lost
    assert run("dead-letters", "discard", 1).code == 0
    run("import", "--apply", import_id, "--again", "--no-wait")
    work()
    done = run("import", "--apply", import_id, "--json").json
    assert (done["outcomes"]["enrolled"], done["outcomes"]["dead"], pairs(rows)) == (1, 1, [(1, 10)])


def test_what_retention_has_removed_is_not_told_a_second_time(
    run: Run, work: Work, rows: Rows, engine: Engine, *, load: Load, tmp_path: Path
) -> None:
    at = format_time(datetime.now(UTC) - timedelta(minutes=5))
    path = canvas(tmp_path, *students(1, 2))
    import_id = run("import", path, "--issued-at", at, "--no-wait", "--json").json["id"]
    work()
    age(engine, 40)
    load("UPDATE import_rows SET issued_at = issued_at - interval '40 days'")
    load("UPDATE imports SET created_at = created_at - interval '40 days'")
    assert everything(engine) == 2
    run("import", "--apply", import_id, "--again", "--no-wait")
    assert (work(), rows("*", "commands")) == (0, [])
    assert len(pairs(rows)) == 2


def test_a_row_that_a_later_file_withdrew_is_counted(run: Run, work: Work, imported: Import, tmp_path: Path) -> None:
    import_id = run("import", oneroster(tmp_path, "bulk", *FOUR, LATER), "--no-wait", "--json").json["id"]
    work()
    imported(oneroster(tmp_path, "bulk", *FOUR))
    outcomes = run("import", "--apply", import_id, "--json").json["outcomes"]
    assert (outcomes["enrolled"], outcomes["withdrawn"]) == (4, 1)
