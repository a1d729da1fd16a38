import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from enrollment.commands import Command, as_fields
from enrollment.errors import DeadLetterCode, UnknownDeadLetter
from enrollment.names import APPLY, ENROLL
from models import dead_letters
from models.dead_letters import DeadLetter, NewDeadLetter
from tasks.replay import CannotReplay, replay
from tests.integration.conftest import message
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]


def only_letter(engine: Engine) -> DeadLetter:
    with engine.connect() as connection:
        [letter] = dead_letters.newest(connection)
        return letter


def keep(
    engine: Engine, code: DeadLetterCode, payload: object, command_id: str | None = None, task: str = ENROLL
) -> int:
    id_ = UUID(command_id) if command_id else None
    with engine.begin() as connection:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        dead_letters.put(connection, [NewDeadLetter(f"key {uuid4()}", code, "Because.", text, id_, task)])
        return dead_letters.newest(connection)[0].id


@pytest.fixture
def send(service: Service) -> Callable[[Sequence[Command]], None]:
    """Give the way through the queue, without the queue."""

    def deliver(commands: Sequence[Command]) -> None:
        service.handle([message(APPLY, commands=[as_fields(command) for command in commands])])

    return deliver


def test_a_corrected_replay_is_a_new_command_linked_to_the_old(
    service: Service, engine: Engine, rows: Rows, send: Any
) -> None:
    wrong = message(ENROLL, student_id=1, course_id=10, issued_at="2026-01-01T00:00:00Z")
    service.handle([wrong])
    letter = only_letter(engine)
    with pytest.raises(CannotReplay, match="course_ids is missing"):
        replay(engine, send, letter.id)
    [new] = replay(engine, send, letter.id, '{"student_id": 1, "course_ids": [10]}').command_ids
    assert str(new) != wrong.task_id
    assert rows("student_id, course_id, issued_at::text, command_id", "student_courses") == [
        (1, 10, "2026-01-01 00:00:00+00", new)
    ], "with the time at which the original was issued"
    assert rows("replayed_as", "dead_letters") == [([new],)]


def test_a_replay_cannot_undo_what_came_later(service: Service, engine: Engine, rows: Rows, send: Any) -> None:
    service.handle([message(ENROLL, student_id=1, course_ids=[10], course_id=10)])
    letter = only_letter(engine)
    service.handle([message("enrollment.unenroll.v1", 1, [10])])
    replay(engine, send, letter.id, '{"command": "enroll", "student_id": 1, "course_ids": [10, 11]}')
    assert rows("course_id", "student_courses") == [(11,)]


def test_what_was_never_processed_is_replayed_under_its_own_id(engine: Engine, rows: Rows, send: Any) -> None:
    own = str(uuid4())
    letter = keep(engine, DeadLetterCode.EXPIRED, [[1, [10]], {}, {"callbacks": None}], own)
    assert replay(engine, send, letter).command_ids == (UUID(own),)
    assert rows("command_id", "student_courses") == [(UUID(own),)]


def test_a_replay_done_twice_or_cut_off_has_its_effect_once(
    engine: Engine, rows: Rows, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = keep(engine, DeadLetterCode.COMMAND_ID_REUSED, {"student_id": 1, "course_ids": [10]}, str(uuid4()))
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(dead_letters, "mark_replayed", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(engine, send, letter)
    first = replay(engine, send, letter)
    assert replay(engine, send, letter) == first
    assert rows("command_id", "commands") == [(first.command_ids[0],)]


def test_a_bulk_is_replayed_with_the_ids_of_its_commands(engine: Engine, rows: Rows, send: Any) -> None:
    items = [{"command_id": str(uuid4()), "command": "enroll", "student_id": n, "course_ids": [10]} for n in (1, 2)]
    letter = keep(engine, DeadLetterCode.REVOKED, [[], {"commands": items}, {}], str(uuid4()), APPLY)
    assert {str(id_) for id_ in replay(engine, send, letter).command_ids} == {item["command_id"] for item in items}
    assert rows("student_id", "student_courses") == [(1,), (2,)]


@pytest.mark.parametrize(
    "payload", ["not json", "5", '"x"', "[]", '{"student_id": 1}', '{"command": "drop"}', "[[[]]]"]
)
def test_what_holds_no_command_is_not_replayed(engine: Engine, send: Any, payload: str) -> None:
    letter = keep(engine, DeadLetterCode.NOT_A_MESSAGE, payload, task="other.task")
    with pytest.raises(CannotReplay):
        replay(engine, send, letter)
    assert only_letter(engine).is_open


def test_a_broker_that_is_away_leaves_the_dead_letter_open(engine: Engine) -> None:
    letter = keep(engine, DeadLetterCode.EXPIRED, [[1, [10]], {}], str(uuid4()))

    def away(_: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        replay(engine, away, letter)
    assert only_letter(engine).is_open


def test_a_discarded_dead_letter_is_kept_and_no_longer_listed(engine: Engine, send: Any, rows: Rows) -> None:
    letter = keep(engine, DeadLetterCode.EXPIRED, [[1, [10]], {}], str(uuid4()))
    with engine.begin() as connection:
        assert dead_letters.discard(connection, [letter, 10**30, -1], by="cli/me") == 1
        assert dead_letters.discard(connection, [letter], by="cli/me") == 0
        assert not dead_letters.newest(connection)
        assert not dead_letters.counts(connection)
        assert not dead_letters.open_ids(connection)
        assert not dead_letters.get(connection, letter).is_open
    assert replay(engine, send, letter).command_ids == ()
    assert rows("command_id", "commands") == []
    with pytest.raises(UnknownDeadLetter):
        replay(engine, send, 10**30)
