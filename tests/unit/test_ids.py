from time import time
from uuid import RFC_4122

from enrollment.ids import uuid7


def test_ids_begin_with_the_time_in_milliseconds() -> None:
    before = int(time() * 1000)
    made = uuid7()
    assert before <= made.int >> 80 <= int(time() * 1000) + 1
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_rise_strictly_however_fast_they_are_made() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))
