"""Rows of imports that take effect later, and what later files make of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enrollment.commands import format_time
from tests.integration.cli.conftest import Run, write
from tests.integration.cli.imports.conftest import FOUR, NEWER, Import, Rows, oneroster, pairs, told
from tests.integration.locked import release_all
from worker.service import Service

LATER, EVEN_LATER = "2999-01-01", "2999-02-01"
FIFTH = "5,c10,s5,student,,,{},"


def waiting(rows: Rows) -> list[tuple[int, str]]:
    return rows("student_id, to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD')", "deferred_commands")


def test_an_enrollment_that_begins_later_waits_and_nobody_counts_as_absent_for_it(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(LATER))
    done, report = imported(path)
    assert (done.code, told(report)[-1]) == (0, ("6", "waiting", ""))
    assert report[-1]["message"] == "It takes effect on 2999-01-01 00:00 UTC"
    assert (5, 10) in pairs(rows)
    assert waiting(rows) == [(5, LATER)]


def test_the_same_file_the_next_day_sends_nothing_more_and_another_day_takes_its_place(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    imported(oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(LATER)))
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(LATER)))
    assert (done.code, told(report)[-1]) == (0, ("6", "scheduled", "scheduled"))
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(EVEN_LATER)))
    assert [row["outcome"] for row in report[-2:]] == ["waiting", "withdrawn"]
    assert (done.code, waiting(rows)) == (0, [(5, EVEN_LATER)])


@pytest.mark.parametrize("lines", [(), ("5,c10,s5,student,tobedeleted,,,",), ("5,c10,s5,student,,,,",)])
def test_what_a_later_file_does_not_have_or_decides_otherwise_is_withdrawn(
    imported: Import, rows: Rows, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    imported(oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(LATER)))
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR, *lines))
    assert (done.code, report[-1]["asked"], report[-1]["outcome"]) == (0, "withdraw", "withdrawn")
    assert not waiting(rows)
    assert ((5, 10) in pairs(rows)) == (lines == ("5,c10,s5,student,,,,",))


def test_an_older_file_leaves_what_a_newer_one_has_scheduled(imported: Import, rows: Rows, tmp_path: Path) -> None:
    imported(oneroster(tmp_path, "bulk", *FOUR, FIFTH.format(LATER)), "--issued-at", NEWER)
    _, report = imported(
        oneroster(tmp_path, "bulk", *FOUR, "5,c10,s5,student,,,,"), "--issued-at", "2026-01-01T12:00:00Z"
    )
    assert told(report)[-1] == ("6", "superseded", "superseded")
    _, report = imported(oneroster(tmp_path, "bulk", *FOUR), "--issued-at", "2026-01-01T13:00:00Z")
    assert waiting(rows) == [(5, LATER)]


def test_undo_withdraws_what_waits(
    run: Run, work: Callable[[], int], imported: Import, rows: Rows, tmp_path: Path
) -> None:
    done, _ = imported(oneroster(tmp_path, "bulk", FOUR[0], FIFTH.format(LATER)))
    told = run("why", "--student", "5", "--course", "10").output
    assert "For 2999-01-01 00:00:00 UTC import 1 (enrollments.csv, line 3), as import/oneroster, asked" in told
    assert "asked to enroll them: that waits for its time." in told
    undone = run("import", "undo", done.json["id"], "--no-wait", "--json").json
    assert undone["counts"] == {"unenroll": 1, "withdraw": 1}
    work()
    assert run("import", "--apply", undone["id"], "--json").json["outcomes"]["withdrawn"] == 1
    assert (waiting(rows), pairs(rows)) == ([], [])


def test_a_plain_file_says_when(imported: Import, service: Service, rows: Rows, tmp_path: Path) -> None:
    soon = format_time(datetime.now(UTC) + timedelta(seconds=8))
    path = write(tmp_path / "rows.csv", "student,course,effective_at", f"1,10,{soon}", "2,10,soon", "3,10,")
    _, report = imported(path)
    assert told(report) == [("2", "waiting", ""), ("3", "rejected", "invalid_time"), ("4", "enrolled", "")]
    release_all(service)
    assert pairs(rows) == [(1, 10), (3, 10)]
