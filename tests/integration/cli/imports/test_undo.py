"""`enrollment import undo`: what an import is not answerable for stays as it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Run
from tests.integration.cli.imports.conftest import NEWER, OLDER, Import, Rows, canvas, oneroster, pairs

LIMITS = ("--max-drop-percent", 100, "--max-course-drop-percent", 100)


@pytest.fixture
def undo(run: Run, work: Callable[[], int]) -> Callable[[int], dict[str, int]]:
    """Give a function that undoes an import and returns what that came to."""

    def invoke(import_id: int) -> dict[str, int]:
        plan = run("import", "undo", import_id, "--no-wait", "--json").json
        work()
        assert run("import", "--apply", plan["id"]).code == 0
        counts: dict[str, int] = plan["counts"]
        return counts

    return invoke


@pytest.mark.parametrize("scope", ["courses", "source"])
def test_who_is_absent_from_a_newer_snapshot_too_stays_out(
    imported: Import, undo: Callable[[int], dict[str, int]], rows: Rows, *, scope: str, tmp_path: Path
) -> None:
    everyone = [f"{number},c10,s{number},student,,,," for number in range(1, 6)]
    limits = (*LIMITS, "--scope", scope)
    imported(oneroster(tmp_path, "bulk", *everyone), *limits, "--issued-at", "2025-12-31T00:00:00Z")
    done, _ = imported(oneroster(tmp_path, "bulk", *everyone[:4]), *limits, "--issued-at", OLDER)
    imported(oneroster(tmp_path, "bulk", *everyone[:4], "9,c10,s1,student,,,,"), *limits, "--issued-at", NEWER)
    assert (5, 10) not in pairs(rows)
    undo(done.json["id"])
    assert (5, 10) not in pairs(rows)


def test_a_file_that_came_twice_is_undone_where_it_came_first(
    imported: Import, undo: Callable[[int], dict[str, int]], rows: Rows, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active")
    first, second = (imported(path, "--issued-at", OLDER)[0].json["id"] for _ in range(2))
    assert undo(second) == {}
    assert pairs(rows) == [(1, 10)]
    assert undo(first) == {"unenroll": 1}
    assert pairs(rows) == []
