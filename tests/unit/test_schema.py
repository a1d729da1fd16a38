import json
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from enrollment.commands import MODELS, Kind, Withdraw
from enrollment.errors import ErrorCode
from enrollment.events import Event, EventData, EventType
from enrollment.parsing import Invalid, Unidentified, parse_many, parse_single, parse_withdraw
from enrollment.schema import FOLDER, schemas, text_of

OLD = Path(__file__).parent / "old_messages"
ID = json.loads((OLD / "enrollment.event.v1.jsonl").read_text().splitlines()[0])["id"]


@pytest.mark.parametrize("name", schemas())
def test_the_committed_schema_is_that_of_the_model(name: str) -> None:
    """`python -m enrollment.schema` writes it anew; a change that old bytes do not fit wants a new version instead."""
    assert (FOLDER / f"{name}.json").read_text() == text_of(schemas()[name])


@pytest.mark.parametrize("name", schemas())
def test_old_bytes_still_fit_the_schema(name: str) -> None:
    validator = Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()))
    for line in (OLD / f"{name}.jsonl").read_text().splitlines():
        validator.validate(json.loads(line))


@pytest.mark.parametrize("kind", MODELS)
def test_old_single_commands_are_still_read(kind: Kind) -> None:
    for line in (OLD / f"enrollment.{kind}.v1.jsonl").read_text().splitlines():
        assert not isinstance(parse_single(kind, ID, [], json.loads(line)), Invalid)


def test_old_withdraws_are_still_read() -> None:
    for line in (OLD / "enrollment.withdraw.v1.jsonl").read_text().splitlines():
        assert isinstance(parse_withdraw(UUID(ID), [], json.loads(line)), Withdraw)


def test_old_bulks_are_still_read() -> None:
    for line in (OLD / "enrollment.apply.v1.jsonl").read_text().splitlines():
        for request in parse_many([], json.loads(line)):
            assert not isinstance(request, Invalid | Unidentified)


def test_old_events_are_still_read() -> None:
    for line in (OLD / "enrollment.event.v1.jsonl").read_text().splitlines():
        assert json.loads(Event.model_validate_json(line).to_json()) == json.loads(line)


def test_old_bytes_have_every_field_every_type_and_every_code_of_today() -> None:
    """Whoever adds one adds a line here, which later versions have to read."""
    lines = {name: [json.loads(it) for it in (OLD / f"{name}.jsonl").read_text().splitlines()] for name in schemas()}
    bulk = [command for line in lines["enrollment.apply.v1"] for command in line["commands"]]
    outside = {"command_id", "command"}  # of a single command: the task's id and its name
    assert set(Withdraw.model_fields) - outside == {key for it in lines["enrollment.withdraw.v1"] for key in it}
    for kind, model in MODELS.items():
        fields = set(model.model_fields) - outside
        assert fields == {key for it in lines[f"enrollment.{kind}.v1"] for key in it}
        in_bulk = {key for it in bulk if it["command"] == kind for key in it}
        assert fields <= in_bulk
    events = lines["enrollment.event.v1"]
    assert set(Event.model_fields) == {key for it in events for key in it}
    assert set(EventData.model_fields) == {key for it in events for key in it["data"]}
    assert set(get_args(EventType)) == {it["type"] for it in events}
    assert set(ErrorCode) == {error["code"] for it in events for error in it["data"]["errors"]}
