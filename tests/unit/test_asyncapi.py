import json
from base64 import b64decode
from typing import Any

import pytest
from jsonschema import Draft7Validator

from enrollment import asyncapi, examples, names
from enrollment.errors import DeadLetterCode, ErrorCode
from enrollment.events import Event
from enrollment.parsing import Invalid
from tasks.messages import Message, units_of
from tests.documented import MESSAGES, blocks
from worker.transport.envelope import parse

DOCUMENT = asyncapi.document()


def example_of(message: dict[str, Any]) -> list[Any]:
    return [it["payload"] for it in message["examples"]]


def test_the_committed_document_is_that_of_the_models() -> None:
    """`python -m enrollment.asyncapi` writes it anew; `make asyncapi` validates it."""
    assert asyncapi.FILE.read_text() == asyncapi.text()


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_the_examples_fit_their_schemas(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    schema = {**message["payload"], "components": DOCUMENT["components"]}
    for payload in example_of(message):
        Draft7Validator(schema).validate(payload)


def test_a_payload_that_is_no_command_does_not_fit() -> None:
    message = DOCUMENT["components"]["messages"][names.ENROLL]
    validator = Draft7Validator({**message["payload"], "components": DOCUMENT["components"]})
    for fields in ({}, {"student_id": 1, "course_id": 1}, {"student_id": 0, "course_ids": [1]}):
        assert not validator.is_valid([[], fields, {}])


def test_every_field_is_explained() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            explained = {"description", "$ref", "const"} & said.keys()
            assert explained, f"{name}.{field}"


def test_the_document_names_every_queue_and_task() -> None:
    assert set(DOCUMENT["channels"]) == {names.QUEUE, names.BULK_QUEUE, names.STREAM}
    assert {names.ENROLL, names.UNENROLL, names.REPLACE, names.APPLY} < set(DOCUMENT["operations"])


def test_the_documented_list_entry_is_the_example_and_is_read_as_its_command() -> None:
    [entry] = blocks("list-entry")
    assert entry == examples.entry(examples.ENROLL)
    payload = parse(entry.encode())
    args, kwargs, _ = json.loads(payload["body"])
    headers = payload["headers"]
    [unit] = units_of([Message(headers["task"], headers["id"], "1", args, kwargs)])
    assert unit.request == examples.ENROLL


def test_the_documented_body_is_the_one_in_the_entry() -> None:
    [entry], [body] = blocks("list-entry"), blocks("body")
    assert b64decode(json.loads(entry)["body"]).decode() == body


def test_the_documented_events_are_what_the_publisher_writes() -> None:
    requests = [examples.PATIENT, examples.ENROLL, examples.UNKNOWN_COURSE]
    assert blocks("stream-entry") == [examples.event(request).to_json() for request in requests]


def test_the_documented_bulk_holds_commands() -> None:
    [body] = blocks("bulk-body")
    args, kwargs, _ = json.loads(body)
    units = units_of([Message(names.APPLY, str(examples.APPLY_ID), "1", args, kwargs)])
    assert [unit.request for unit in units] == list(examples.COMMANDS.values())
    assert not any(isinstance(unit.request, Invalid) for unit in units)


@pytest.mark.parametrize("code", [*ErrorCode, *DeadLetterCode])
def test_every_code_is_documented(code: str) -> None:
    assert f"| `{code}` |" in MESSAGES.read_text()


def test_fields_of_a_later_version_do_not_stop_a_reader_of_events() -> None:
    event = json.loads(blocks("stream-entry")[2])
    for part in (event, event["data"], event["data"]["errors"][0]):
        part["later"] = 1
    assert Event.model_validate(event, strict=False) == examples.event(examples.UNKNOWN_COURSE)
