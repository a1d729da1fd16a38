"""What the producer makes of what it is told, before anything is sent."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrollment import names
from enrollment.client import Bulk, Client, InvalidCommand, read_command
from enrollment.client import producer as client_module
from enrollment.client.broker_connection import OutgoingMessage
from enrollment.commands import MAX_COMMANDS, MAX_ID, Enroll, Replace, Withdraw, as_fields

ID = "11111111-1111-4111-8111-111111111111"


class BrokerConnection:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[OutgoingMessage] = []

    def publish(self, message: OutgoingMessage, _ids: tuple[UUID, ...]) -> None:
        self.sent.append(message)

    @property
    def messages(self) -> list[list[dict[str, Any]]]:
        return [json.loads(message.body)[1]["commands"] for message in self.sent]

    @property
    def commands(self) -> list[dict[str, Any]]:
        return [command for commands in self.messages for command in commands]


@pytest.fixture
def broker() -> BrokerConnection:
    return BrokerConnection()


def bulk(broker: BrokerConnection) -> Bulk:
    return Bulk(broker)  # type: ignore[arg-type]


def test_a_command_without_id_and_time_gets_a_new_id_and_is_issued_now() -> None:
    command = read_command({"command": "enroll", "student_id": 1, "course_ids": [2]})
    assert isinstance(command, Enroll)
    assert command.command_id.version == 7
    assert command.issued_at is not None
    assert abs(command.issued_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_command_with_an_id_of_its_own_is_left_as_it_is_so_that_a_repeat_says_the_same() -> None:
    said = {"command": "replace", "student_id": 1, "course_ids": [], "command_id": ID}
    command = read_command(said)
    assert command == read_command(said) == Replace(student_id=1, course_ids=(), command_id=UUID(ID))
    assert command.issued_at is None


def test_what_is_null_was_not_said() -> None:
    command = read_command(
        {"command": "enroll", "student_id": 1, "course_ids": [2], "command_id": None, "source": None}
    )
    assert command.source is None
    assert command.issued_at is not None


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({"student_id": 0, "course_ids": ["x"]}, ("student_id", "course_ids")),
        ({"student_id": 1, "course_ids": []}, ("course_ids",)),
        ({"student_id": 1, "course_ids": [1], "course": 3}, ("course",)),
        ({"student_id": 1, "course_ids": [1], "issued_at": datetime(2026, 1, 1)}, ("issued_at",)),  # noqa: DTZ001
        ({"student_id": 1, "course_ids": [1], "command_id": "17"}, ("command_id",)),
        ({"student_id": 1, "course_ids": [1], "command": "enrol"}, ("command",)),
        ({}, ("student_id", "course_ids")),
    ],
)
def test_an_invalid_command_is_refused_with_the_names_of_its_fields(
    said: dict[str, Any], fields: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidCommand) as raised:
        read_command({"command": "enroll", **said})
    assert set(raised.value.fields) == set(fields)


def test_a_client_that_refuses_a_command_has_not_looked_for_its_broker() -> None:
    with pytest.raises(InvalidCommand, match="student_id"):
        Client("redis://nowhere.invalid:1/0").enroll(-1, [1])


def test_bulk_fills_messages_to_the_most_that_one_may_carry(broker: BrokerConnection) -> None:
    with bulk(broker) as sender:
        ids = [sender.enroll(number, [1]) for number in range(1, MAX_COMMANDS + 2)]
        assert (sender.sent, sender.waiting) == (MAX_COMMANDS, 1)
    assert [(message.queue, message.task) for message in broker.sent] == [(names.BULK_QUEUE, names.APPLY)] * 2
    assert [UUID(command["command_id"]) for command in broker.commands] == ids
    assert (sender.sent, sender.messages, sender.waiting) == (MAX_COMMANDS + 1, 2, 0)


def test_bulk_goes_to_the_queue_that_is_named(broker: BrokerConnection) -> None:
    with Bulk(broker, names.QUEUE) as sender:  # type: ignore[arg-type]
        sender.enroll(1, [1])
    assert [(message.queue, message.task) for message in broker.sent] == [(names.QUEUE, names.APPLY)]


def test_bulk_bounds_the_bytes_of_a_message(broker: BrokerConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BYTES", 1000)
    with bulk(broker) as sender:
        for number in range(1, 51):
            sender.enroll(number, range(1, 31))
    assert len(broker.commands) == 50
    assert len(broker.sent) > 10


def test_bulk_takes_a_command_that_is_larger_than_a_message_should_be(
    broker: BrokerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_BYTES", 10)
    with bulk(broker) as sender:
        sender.enroll(1, [1])
        sender.enroll(2, [1])
    assert [len(commands) for commands in broker.messages] == [1, 1]


def test_bulk_sends_nothing_more_after_an_error_in_its_block(broker: BrokerConnection) -> None:
    sender = bulk(broker)
    sender.enroll(1, [1])
    with pytest.raises(ZeroDivisionError), sender:
        _ = 1 / 0
    assert broker.sent == []
    assert (sender.sent, sender.waiting) == (0, 1)


def test_an_empty_bulk_sends_nothing(broker: BrokerConnection) -> None:
    with bulk(broker):
        pass
    assert broker.sent == []


@given(st.datetimes(timezones=st.just(UTC)), st.booleans())
def test_what_travels_says_what_the_command_says(time: datetime, later: bool) -> None:  # noqa: FBT001
    command = Replace(
        command_id=UUID(ID), student_id=MAX_ID, course_ids=(), issued_at=time, effective_at=time if later else None
    )
    broker = BrokerConnection()
    with bulk(broker) as sender:
        sender.send(command)
    assert broker.commands == [as_fields(command)]
    _, said, _ = json.loads(client_module._message(command).body)
    assert {**said, "command_id": ID, "command": "replace"} == as_fields(command)


def test_a_withdraw_says_what_it_ends(broker: BrokerConnection) -> None:
    bulk(broker).send(Withdraw(command_id=UUID(ID), target=UUID(int=1), source="portal"))
    [message] = broker.sent
    assert (message.task, message.task_id) == (names.WITHDRAW, ID)
    assert json.loads(message.body)[1] == {"target": str(UUID(int=1)), "source": "portal"}


def test_student_ids_are_in_the_body_alone(broker: BrokerConnection) -> None:
    with bulk(broker) as sender:
        sender.enroll(987654321, [1])
    [message] = broker.sent
    assert "987654321" not in f"{message.task_id} {message.about}"
    assert message.about == "<1 command>"
