"""What keeps the absent enrolled."""

from typing import Any

import pytest

from models.import_snapshots import Drops
from tasks.imports.guard import Limits, objection


def drops(**counts: tuple[int, int]) -> dict[str, Drops]:
    return {what: Drops(None if what == "all" else "MAT", *numbers) for what, numbers in counts.items()}


FEW = drops(all=(2, 100), most=(2, 10), share=(2, 10))


@pytest.mark.parametrize(
    ("limits", "asking", "invalid", "counts", "complaint"),
    [
        ({}, 50, (0, None), FEW, None),
        ({}, 0, (0, None), drops(all=(0, 100)), "no row that asks for something"),
        ({}, 50, (1, "a.csv, line 7"), FEW, "1 row is invalid (the first is in a.csv, line 7)"),
        ({}, 50, (1000, "a.csv, line 7"), FEW, "1,000 rows are invalid"),
        (
            {},
            50,
            (0, None),
            drops(all=(21, 100)),
            "21 of the 100 who are enrolled are absent from the files, more than 20",
        ),
        ({"percent": 50}, 50, (0, None), drops(all=(21, 100)), None),
        ({"number": 1}, 50, (0, None), FEW, "raise --max-drops."),
        ({"course_number": 1}, 50, (0, None), FEW, "enrolled in MAT are absent from the files, more than 1;"),
        ({}, 50, (0, None), drops(all=(6, 100), most=(6, 11), share=(6, 11)), "raise --max-course-drop-percent."),
        ({"percent": 0}, 50, (0, None), drops(all=(0, 0)), None),
    ],
)
def test_the_absent_stay_enrolled_where_a_snapshot_looks_wrong(
    limits: dict[str, Any],
    asking: int,
    invalid: tuple[int, str | None],
    counts: dict[str, Drops],
    complaint: str | None,
) -> None:
    found = objection(Limits(**limits), asking, invalid, counts)
    assert (found is None) if complaint is None else (found is not None and complaint in found)
