"""Acknowledging many messages of a channel in few frames."""

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.transport.rabbitmq import runs


@settings(max_examples=50)
@given(st.sets(st.integers(1, 40)), st.data())
def test_what_is_acknowledged_is_what_was_meant_and_no_other(held: set[int], data: st.DataObject) -> None:
    tags = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    upto, single = runs(sorted(held), tags)
    assert {tag for tag in held if tag <= upto} | set(single) == tags
    assert not any(tag <= upto for tag in single)


def test_a_whole_batch_in_order_is_one_frame_and_what_came_later_stays() -> None:
    assert runs([3, 4, 5, 6, 9], [4, 3, 5]) == (5, [])
    assert runs([3, 4, 5, 6], [4, 6]) == (0, [4, 6])
