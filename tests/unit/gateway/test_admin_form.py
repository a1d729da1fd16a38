import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import FormData

from enrollment.commands import Kind
from gateway.admin.form import NoIds, Ticked
from gateway.submission import Change

Ids = frozenset[int]
ids = st.frozensets(st.integers(1, 8))


def after(change: Change | None, current: Ids) -> Ids:
    """What a worker makes of a change."""
    if change is None:
        return current
    asked = frozenset(change.course_ids)
    return {Kind.ENROLL: current | asked, Kind.UNENROLL: current - asked, Kind.REPLACE: asked}[change.kind]


@given(had=ids, kept=ids, added=ids, current=ids)
def test_one_command_makes_the_difference_and_no_other(had: Ids, kept: Ids, added: Ids, current: Ids) -> None:
    form = FormData(
        [("had", " ".join(map(str, had))), *(("keep", str(it)) for it in kept), *(("add", str(it)) for it in added)]
    )
    change = Ticked.of(form).change(1, current)
    assert after(change, current) == current - (had - kept - added) | added
    assert change is None or change.course_ids


@pytest.mark.parametrize("said", ["x", "-1", "0", "1.0", "1e3", "٣", str(2**63), "1 2 x"])
def test_what_is_no_id_is_told(said: str) -> None:
    with pytest.raises(NoIds):
        Ticked.of(FormData([("ids", said)]))


def test_typed_ids_are_separated_by_blanks_commas_and_semicolons() -> None:
    assert Ticked.of(FormData([("ids", " 1,2;3\t4\n 5 ,, ")])).added == {1, 2, 3, 4, 5}
