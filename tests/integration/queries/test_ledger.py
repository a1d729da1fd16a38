"""What a batch reads of its students before it is decided."""

from sqlalchemy import Connection

from models import ledger
from tests.integration.queries.test_history import enroll, process, replace, unenroll


def test_of_a_student_only_the_pairs_that_are_named_are_read(connection: Connection) -> None:
    process(connection, enroll(9, 102, 103), unenroll(10, 103))
    state, _ = ledger.read_state(connection, {1}, [enroll(11, 102), unenroll(11, 103)])({1})
    assert {course_id: pair.enrolled for course_id, pair in state.students[1].pairs.items()} == {102: True, 103: False}


def test_for_a_replace_all_pairs_of_its_student_are_read_and_of_the_others_still_those_named(
    connection: Connection,
) -> None:
    process(connection, enroll(9, 102, 103), unenroll(10, 103), enroll(9, 103, student_id=2))
    state, _ = ledger.read_state(connection, {1, 2}, [enroll(11, 102), replace(12), enroll(11, 101, student_id=2)])(
        {1, 2}
    )
    assert {c: pair.enrolled for c, pair in state.students[1].pairs.items()} == {101: True, 102: True, 103: False}
    assert set(state.students[2].pairs) == {101}
