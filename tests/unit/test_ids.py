import os
from time import time
from uuid import RFC_4122, UUID

import pytest

from enrollment import ids
from enrollment.ids import uuid7


def test_ids_begin_with_the_time_in_milliseconds() -> None:
    before = int(time() * 1000)
    made = uuid7()
    assert before <= made.int >> 80 <= int(time() * 1000) + 1
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_rise_strictly_however_fast_they_are_made() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_rise_when_the_clock_goes_back_and_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = uuid7()
    monkeypatch.setattr(ids, "time_ns", lambda: 0)
    made = [uuid7() for _ in range(1_000)]
    assert made == sorted({newest, *made})[1:]
    assert {(it.version, it.variant) for it in made} == {(7, RFC_4122)}


def test_a_forked_process_draws_numbers_of_its_own() -> None:
    uuid7()  # more than one was drawn
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, uuid7().bytes)
        os._exit(0)
    os.waitpid(child, 0)
    assert UUID(bytes=os.read(ours, 16)).bytes[-4:] != uuid7().bytes[-4:]
