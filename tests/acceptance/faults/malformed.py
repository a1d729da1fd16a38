"""Messages that are none, or only almost: every sort that stops, loses or kills something in stock Celery.

Each carries a marker, by which its dead letter is found. A few are odd but valid, and have to be applied.
"""

import base64
import bz2
import json
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.acceptance.faults.commands import TASKS, Generator, Message, SentCommand
from tests.acceptance.faults.scenario import Run, Scenario

LARGE: Final = 10_000_000  # bytes
ENROLL: Final = TASKS["enroll"]

Envelope = dict[str, Any]
Change = Callable[[Envelope, str], str | bytes]


def envelope(body: object, *, task: str | None = ENROLL, task_id: str | None = None, **more: Any) -> Envelope:
    """Return a message as kombu writes it; `body` is JSON text, or a value that becomes it."""
    text = body if isinstance(body, str) else json.dumps(body)
    tag = str(uuid.uuid4())
    return {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id or str(uuid.uuid4()), "retries": 0, **more},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "enrollment"},
            "delivery_mode": 2,
            "delivery_tag": tag,
            "priority": 0,
        },
    }


def _kwargs(marker: str, **fields: Any) -> list[Any]:
    return [[], {"student_id": 1, "course_ids": [1], "source": marker, **fields}, {}]


def _without(*names: str) -> Change:
    """Return an envelope that lacks something; the marker is in its body."""

    def change(made: Envelope, _: str) -> str:
        for name in names[:-1]:
            made[name].pop(names[-1], None)
        if len(names) == 1:
            made.pop(names[0])
        return json.dumps(made)

    return change


def _with(part: str, **values: Any) -> Change:
    def change(made: Envelope, marker: str) -> str:
        target = made if part == "" else made[part]
        target.update({name.replace("_", "-") if part == "" else name: value for name, value in values.items()})
        made["headers"]["shadow"] = marker
        return json.dumps(made)

    return change


def _body(text: Callable[[str], object]) -> Change:
    """Return an envelope with another body; the marker is in it and in a header."""

    def change(made: Envelope, marker: str) -> str:
        return json.dumps(envelope(text(marker), shadow=marker))

    return change


def _bomb(made: Envelope, marker: str, compressor: Any, method: str) -> str:
    """Return a message whose body would take 400 MB."""
    piece = bytes(LARGE)
    body = b"".join(compressor.compress(piece) for _ in range(40)) + compressor.flush()
    made["headers"].update(compression=method, shadow=marker)
    return json.dumps({**made, "body": base64.b64encode(body).decode()})


# Whatever stands here ends as one dead letter with its marker.
DEAD: Final[Mapping[str, Change]] = {
    "not JSON": lambda _, marker: f"hello {marker}",
    "not UTF-8": lambda _, marker: b"\xff\xfe " + marker.encode(),
    "a JSON list": lambda _, marker: json.dumps([marker]),
    "a JSON string": lambda _, marker: json.dumps(marker),
    "nothing but braces": lambda _, marker: json.dumps({"properties": {"x": marker}}),
    "no headers": lambda made, marker: json.dumps({**made, "headers": None, "x": marker}),
    "no id": lambda made, marker: json.dumps({**made, "headers": {"task": ENROLL, "x": marker}}),
    "no task": lambda made, marker: json.dumps({**made, "headers": {"id": made["headers"]["id"], "x": marker}}),
    "properties are a list": lambda made, marker: json.dumps({**made, "properties": [marker]}),
    "no body": lambda made, marker: json.dumps({**made, "body": None, "x": marker}),
    "body not base64": lambda made, marker: json.dumps({**made, "body": f"{marker}%%%"}),
    "body not JSON": _body(lambda marker: "{" + marker),
    "body not three parts": _body(lambda marker: {"student_id": marker}),
    "args not a list": _body(lambda marker: [marker, {}, {}]),
    "kwargs not an object": _body(lambda marker: [[], [marker], {}]),
    "unknown task": _with("headers", task="enrollment.enrol.v1"),
    "Celery's own task": _with("headers", task="celery.map"),
    "pickle": _with("", content_type="application/x-python-serialize"),
    "unknown content type": _with("", content_type="application/x-nothing"),
    "no content type": _with("", content_type=None),
    "unknown encoding": _with("", content_encoding="ebcdic"),
    "unknown body encoding": _with("properties", body_encoding="rot13"),
    "unknown compression": _with("headers", compression="rot13"),
    "compressed, and it is not": _with("headers", compression="gzip"),
    "a bomb of bzip2": lambda made, marker: _bomb(made, marker, bz2.BZ2Compressor(), "application/x-bz2"),
    "a bomb of zlib": lambda made, marker: _bomb(made, marker, zlib.compressobj(9), "gzip"),
    "17 MB": lambda made, marker: json.dumps({"x": marker, **made, "y": "x" * 17_000_000}),
    "a million values": lambda made, marker: json.dumps({**made, "x": marker, "y": [0] * 1_300_000}),
    "bad expiry": _with("headers", expires="tomorrow"),
    "bad eta": _with("headers", eta="never"),
    "5,000 digits": _body(lambda marker: f'[[{"9" * 5000}], {{"source": "{marker}"}}, {{}}]'),
    "100,000 deep": _body(lambda marker: f'["{marker}",' + "[" * 100_000),
    "NaN": _body(lambda marker: f'[[NaN, [1]], {{"source": "{marker}"}}, {{}}]'),
    "Infinity": _body(lambda marker: f'[[Infinity, [1]], {{"source": "{marker}"}}, {{}}]'),
    "an apply that is none": lambda _, marker: json.dumps(
        envelope([[], {"commands": marker}, {}], task="enrollment.apply.v1")
    ),
}

# Arguments that make a command invalid: one rejected command, one event, one dead letter.
INVALID: Final[Mapping[str, dict[str, Any]]] = {
    "10 MB": {"padding": "x" * LARGE},
    "NUL": {"source": "a\x00b"},
    "a lone surrogate": {"source": "\ud800"},
    "a name with a lone surrogate": {"\udc00": 1},
    "true": {"student_id": True},
    "1.0": {"student_id": 1.0},
    "digits of another script": {"student_id": "\u0661"},
    "2^63": {"student_id": 2**63},
    "2^200": {"course_ids": [2**200]},
    "zero": {"course_ids": [0]},
    "a datetime by a hook": {"course_ids": {"__type__": "datetime", "__value__": "2026-01-31T09:30:00"}},
    "bytes by a hook": {"source": {"__type__": "bytes", "__value__": "eA=="}},
    "a bad hook": {"source": {"__type__": "nothing", "__value__": 1}},
    "1,001 courses": {"course_ids": list(range(1, 1002))},
    "wrong keyword": {"course_id": 1},
    "a command id of its own": {"command_id": "x"},
}

# Odd, but commands all the same: what stands beside the arguments is not heeded.
ODD: Final[Mapping[str, Callable[[Envelope, list[Any]], object]]] = {
    "no properties": lambda made, body: made.update({"properties": {}, "body": json.dumps(body)}),
    "no delivery tag": lambda made, _: made["properties"].pop("delivery_tag"),
    "the delivery tag of another": lambda made, _: made["properties"].update(delivery_tag="the-same"),
    "no delivery info": lambda made, _: made["properties"].pop("delivery_info"),
    "bad time limit": lambda made, _: made["headers"].update(timelimit="soon"),
    "a time limit of nothing": lambda made, _: made["headers"].update(timelimit=[0.001, 0.001]),
    "callbacks": lambda made, body: made.update(body=_with_callbacks(body)),
}


def _with_callbacks(body: list[Any]) -> str:
    signature: dict[str, Any] = {"task": ENROLL, "args": [1, [12]], "kwargs": {}, "options": {}, "subtask_type": None}
    embed = {"callbacks": [signature], "errbacks": [signature], "chain": [signature], "chord": signature}
    return base64.b64encode(json.dumps([*body[:2], embed]).encode()).decode()


def _inject(run: Run) -> None:
    generator = Generator(run.rng)
    with run.harness.client() as client:
        for number in range(run.count):
            for name in run.rng.sample([*DEAD, *INVALID, *ODD], len(DEAD) + len(INVALID) + len(ODD)):
                if name == "10 MB" and number:
                    continue  # once is enough: it takes a second
                entry, message = _make(run, generator, name)
                run.sent_log.sending(message)
                client.lpush("enrollment", entry)
                run.sent_log.sent(message)
                run.pause(0, 0.02)
                run.injected += 1
    run.until_work_goes_on()


def _make(run: Run, generator: Generator, name: str) -> tuple[str | bytes, Message]:
    marker = f"marker-{uuid.UUID(int=run.rng.getrandbits(128), version=4)}"
    if name in DEAD:
        entry = DEAD[name](envelope(_kwargs(marker)), marker)
        return entry, Message("", "", {}, (), (marker,))
    good = generator.good()
    (said,) = good.said
    fields = {**said.fields, **INVALID.get(name, {})}
    body = [[], fields, {}]
    made = envelope(body, task=TASKS[said.kind], task_id=said.command_id)
    if name in ODD:
        ODD[name](made, body)
        return json.dumps(made), Message("", "", {}, (said,))
    return json.dumps(made), Message("", "", {}, (SentCommand(said.command_id, said.kind, fields, "invalid_command"),))


SCENARIOS: Sequence[Scenario] = [Scenario("malformed messages, every sort", 5, 1, _inject, seconds=8)]
