"""How long the relay leaves an event stream alone that is away."""

from collections.abc import Callable, Iterator
from itertools import repeat
from time import sleep
from typing import Any

import pytest
from redis import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from enrollment.names import ENROLL
from tests.integration.conftest import message
from worker.publishing import Publisher
from worker.relay import _PAUSES
from worker.service import Service

Pauses = Callable[[Iterator[bool]], list[float]]


@pytest.fixture
def pauses(service: Service, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Give a function that relays five batches in six attempts; it is told of each whether the stream is there."""
    with monkeypatch.context() as patch:  # as if killed right after each commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        for course in range(10, 15):
            service.handle([message(ENROLL, 1, [course])])

    def attempt(answers: Iterator[bool]) -> list[float]:
        publish = publisher.publish

        def answer(*args: Any) -> int:
            if next(answers):
                return publish(*args)
            raise RedisConnectionError

        monkeypatch.setattr(publisher, "publish", answer)
        with capture_logs() as logs:
            for _ in range(6):
                service._relay._not_before = 0
                service.relay(older_than=0)
        return [entry["seconds"] for entry in logs if entry["event"] == "event_stream_away"]

    return attempt


def test_the_pauses_grow_and_stay_below_what_is_promised(pauses: Pauses) -> None:
    found = pauses(repeat(object=False))
    assert _PAUSES[0] / 2 < found[0] <= _PAUSES[0]
    assert found[0] < found[1] < found[2] <= _PAUSES[1]
    assert max(found) <= _PAUSES[1]


def test_whatever_the_stream_takes_in_between_makes_the_next_pause_short(pauses: Pauses) -> None:
    away, there = [False], [True]
    found = pauses(iter([*away * 3, *there * 2, *away, *there, *away, *there * 10]))
    assert len(found) == 5
    assert max(found[3:]) <= _PAUSES[0] < found[2]


def test_a_stream_that_does_not_answer_is_left_alone_for_as_long_as_is_promised_and_not_longer(pauses: Pauses) -> None:
    def slow() -> Iterator[bool]:
        while True:
            sleep(0.8)
            yield False

    assert set(pauses(slow())) == {_PAUSES[1]}


def test_when_the_broker_is_there_again_the_stream_is_tried_at_once(
    service: Service, publisher: Publisher, catalog: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RedisConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(publisher, "publish", refuse)
        service.handle([message(ENROLL, 1, [10])])
    assert service.relay(older_than=0) == 0
    service.look_again()
    assert service.relay(older_than=0) == 1
