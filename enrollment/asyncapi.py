"""The AsyncAPI document of queues, event stream and messages: `python -m enrollment.asyncapi` writes it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from enrollment import examples, names
from enrollment.commands import (
    ApplyArguments,
    EnrollArguments,
    ReplaceArguments,
    UnenrollArguments,
    WithdrawArguments,
    as_fields,
)
from enrollment.events import Event
from enrollment.names import STREAM

FILE: Final = Path(__file__).parent.parent / "docs" / "asyncapi.json"
VERSION: Final = "1.1.0"  # of the messages, not of the worker: the first number is the `v1` in their names

JsonObject = dict[str, Any]

_ARGUMENTS: Final[Mapping[str, type[BaseModel]]] = {
    names.ENROLL: EnrollArguments,
    names.UNENROLL: UnenrollArguments,
    names.REPLACE: ReplaceArguments,
    names.WITHDRAW: WithdrawArguments,
    names.APPLY: ApplyArguments,
}
_QUEUES: Final[Mapping[str, tuple[str, ...]]] = {
    names.QUEUE: tuple(names.TASKS.values()),
    names.BULK_QUEUE: tuple(task for task, kind in names.KINDS.items() if kind is None),
}
_EVENTS: Final[Mapping[str, tuple[tuple[str, Event], ...]]] = {
    "enrollment.applied.v1": (
        ("enrolled", examples.event(examples.ENROLL)),
        ("unenrolled", examples.event(examples.UNENROLL)),
        ("replaced", examples.event(examples.REPLACE)),
    ),
    "enrollment.rejected.v1": (
        ("unknown course", examples.event(examples.UNKNOWN_COURSE)),
        ("invalid", examples.event(examples.MISSPELT)),
    ),
    "enrollment.waiting.v1": (
        ("unknown course", examples.event(examples.PATIENT)),
        ("its time", examples.event(examples.LATER)),
    ),
    "enrollment.withdrawn.v1": (("withdrawn", examples.withdrawn(examples.PATIENT)),),
}
_HEADERS: Final[JsonObject] = {
    "type": "object",
    "description": "Headers of Celery's message protocol 2. Those that are not named here are not looked at.",
    "required": ["task", "id"],
    "properties": {
        "task": {"type": "string", "description": "The name of the task."},
        "id": {"type": "string", "format": "uuid", "description": "The task id: the command id of a single command."},
        "expires": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "After this moment the message is not applied but kept as a dead letter.",
        },
        "eta": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "The `effective_at` of commands that say none. Celery's `countdown` sets it.",
        },
    },
}


def document() -> JsonObject:
    """Return the document, as the models are now."""
    return {
        "asyncapi": "3.1.0",
        "id": "urn:enrollment-worker",
        "info": {
            "title": "Enrollment worker",
            "version": VERSION,
            "description": "Commands come in on queues, one result event per command goes out on a stream. "
            "Every command takes effect exactly once, and the world is told exactly once what came of it; of a command "
            "that has to wait it is told before that it waits. "
            "docs/messages.md has the rules and the bytes on Redis.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"redis": _server()},
        "channels": {**{queue: _queue(queue) for queue in _QUEUES}, STREAM: _stream()},
        "operations": {**{task: _receive(queue, task) for queue, task in _tasks()}, "tell": _tell()},
        "components": {
            "messages": {
                **{task: _command(task) for task in _ARGUMENTS},
                **{name: _event(name) for name in _EVENTS},
            },
            "schemas": {"Headers": _HEADERS, **_schemas()},
        },
    }


def text() -> str:
    """Return the document as its file holds it."""
    return json.dumps(document(), indent=2) + "\n"


def _server() -> JsonObject:
    return {
        "host": "{host}:{port}",
        "protocol": "redis",
        "protocolVersion": "6.2",
        "description": "Redis or Valkey. The stream may live in another one than the queues.",
        "variables": {"host": {"default": "localhost"}, "port": {"default": "6379"}},
    }


def _tasks() -> Iterator[tuple[str, str]]:
    for queue, tasks in _QUEUES.items():
        for task in tasks:
            yield queue, task


def _queue(queue: str) -> JsonObject:
    return {
        "address": queue,
        "title": "Single commands" if queue == names.QUEUE else "Many commands in one message",
        "description": "A Redis list. Producers LPUSH; each entry is a JSON object, the envelope of kombu.",
        "messages": {task: _ref("messages", task) for task in _QUEUES[queue]},
        "bindings": {"redis": {}},
    }


def _stream() -> JsonObject:
    return {
        "address": STREAM,
        "title": "Result events",
        "description": "A Redis Stream; the key is configurable (ENROLLMENT_EVENTS_STREAM). Each entry has one field, "
        "`event`. Trimmed to a configured length (ENROLLMENT_EVENTS_MAXLEN).",
        "messages": {name: _ref("messages", name) for name in _EVENTS},
        "bindings": {"redis": {}},
    }


def _receive(queue: str, task: str) -> JsonObject:
    return {
        "action": "receive",
        "summary": _summary(_ARGUMENTS[task]),
        "channel": {"$ref": f"#/channels/{queue}"},
        "messages": [{"$ref": f"#/channels/{queue}/messages/{task}"}],
        "reply": {
            "channel": {"$ref": f"#/channels/{STREAM}"},
            "messages": [{"$ref": f"#/channels/{STREAM}/messages/{name}"} for name in _EVENTS],
        },
    }


def _summary(model: type[BaseModel]) -> str:
    """Return the first line of its docstring. The others have indentation in some versions of Python."""
    return (model.__doc__ or "").partition("\n")[0]


def _tell() -> JsonObject:
    return {
        "action": "send",
        "summary": "What came of a command: one event for each, and one before that where it waits.",
        "channel": {"$ref": f"#/channels/{STREAM}"},
        "messages": [{"$ref": f"#/channels/{STREAM}/messages/{name}"} for name in _EVENTS],
    }


def _command(task: str) -> JsonObject:
    model = _ARGUMENTS[task]
    return {
        "name": task,
        "title": model.__name__.removesuffix("Arguments"),
        "summary": _summary(model),
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/id"},
        "headers": _ref("schemas", "Headers"),
        "payload": {
            "type": "array",
            "description": "The body of a Celery message: positional arguments, keyword arguments, options. "
            "`student_id` and `course_ids` may be positional, in this order; options are not looked at.",
            "items": [{"type": "array", "maxItems": 0}, _ref("schemas", model.__name__), {"type": "object"}],
            "minItems": 3,
            "maxItems": 3,
        },
        "examples": [_command_example(task)],
    }


def _command_example(task: str) -> JsonObject:
    if names.KINDS[task] is None:
        said: JsonObject = {"commands": [as_fields(command) for command in examples.COMMANDS.values()]}
        id_ = examples.APPLY_ID
    else:
        said, id_ = examples.arguments(examples.SINGLE[task]), examples.SINGLE[task].command_id
    return {"headers": {"task": task, "id": str(id_)}, "payload": [[], said, {}]}


def _event(name: str) -> JsonObject:
    return {
        "name": name,
        "title": name.split(".")[1].capitalize(),
        "summary": "A CloudEvents 1.0 JSON object.",
        "contentType": "application/json",
        "correlationId": {"location": "$message.payload#/id"},
        "payload": {"allOf": [_ref("schemas", "Event"), {"properties": {"type": {"const": name}}}]},
        "examples": [{"name": label, "payload": json.loads(event.to_json())} for label, event in _EVENTS[name]],
    }


def _schemas() -> JsonObject:
    """Return the schemas of all models by name, in the dialect of AsyncAPI, which is JSON Schema draft 7."""
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _ARGUMENTS.values()]
    _, definitions = models_json_schema(
        [*inputs, (Event, "serialization")], ref_template="#/components/schemas/{model}"
    )
    return {name: _in_draft_7(schema) for name, schema in sorted(definitions["$defs"].items())}


def _in_draft_7(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_in_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # pydantic writes the discriminator of OpenAPI; `oneOf` and the constants of `command` say the same.
    return {name: _in_draft_7(value) for name, value in schema.items() if name != "discriminator"}


def _ref(kind: str, name: str) -> JsonObject:
    return {"$ref": f"#/components/{kind}/{name}"}


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
