"""A producer that waits for what comes of its commands."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from enrollment.client import Client, NoEventsAddress, NoOutcomeYet
from enrollment.client.outcomes import Outcomes
from enrollment.names import ENROLL
from tasks.messages import Message
from tests.integration.conftest import message
from worker.local.redis import Redis as RedisServer
from worker.service import Service

Send = Callable[..., list[UUID]]


@pytest.fixture
def send(service: Service) -> Send:
    """Give a function that has commands applied; they return their ids."""

    def handle(*messages: Message) -> list[UUID]:
        service.handle(messages)
        return [UUID(it.task_id) for it in messages]

    return handle


@pytest.fixture
def outcomes(redis_url: str) -> Iterator[Outcomes]:
    it = Outcomes(redis_url)
    yield it
    it.close()


def test_an_outcome_that_is_there_is_found_among_others(outcomes: Outcomes, send: Send) -> None:
    sent = send(*(message(ENROLL, 1 + n % 5, [10]) for n in range(1100)), message(ENROLL, 1, [99]))
    assert outcomes.wait_for(sent[7], 1).type == "enrollment.applied.v1"
    assert [it.code for it in outcomes.wait_for(sent[-1], 1).data.errors] == ["unknown_courses"]


def test_an_outcome_that_does_not_come_is_an_error_in_time(outcomes: Outcomes) -> None:
    before, asked = time.monotonic(), uuid4()
    with pytest.raises(NoOutcomeYet, match=str(asked)):
        outcomes.wait_for(asked, 0.3)
    assert 0.3 <= time.monotonic() - before < 1.5


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url) as it:
        yield it


def test_a_client_sees_what_came_of_what_it_sent(client: Client, send: Send) -> None:
    command_id = client.enroll(1, [10])
    send(message(ENROLL, 1, [10], task_id=command_id), message(ENROLL, 2, [10]))
    assert client.wait_for(command_id, 1).data.enrolled == (10,)
    assert client.wait_for(command_id, 1).id == command_id  # as often as it is asked


def test_waiting_goes_on_when_redis_went_away(client: Client, send: Send, redis: RedisServer) -> None:
    command_id = client.enroll(1, [10])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.wait_for, command_id, 20)
        time.sleep(0.2)
        redis.kill()
        redis.start()
        send(message(ENROLL, 1, [99], task_id=command_id))
        assert waiting.result().type == "enrollment.rejected.v1"


def test_a_client_of_another_broker_must_be_told_where_the_events_are() -> None:
    with Client("amqp://broker") as client, pytest.raises(NoEventsAddress, match="events_url"):
        client.wait_for(uuid4())
