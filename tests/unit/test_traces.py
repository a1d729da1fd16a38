"""A trace context is taken from a message only where it is one, and stands in the event as it came."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from enrollment.events import Event, event_json, event_of
from enrollment.fold import Effects, Record
from enrollment.schema import schemas
from enrollment.traces import trace_id_of, trace_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RECORD = Record(
    UUID(int=7), None, None, None, None, None, "rejected", Effects(), (), datetime(2026, 1, 1, tzinfo=UTC), b""
)


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": PARENT}, PARENT),
        ({"traceparent": PARENT, "tracestate": 'a=1,b="2"'}, f'{PARENT} a=1,b="2"'),
        ({"traceparent": PARENT, "tracestate": "a\n"}, PARENT),
        ({"traceparent": PARENT, "tracestate": "a" * 513}, PARENT),
        ({"traceparent": PARENT.replace("00-", "ff-", 1)}, None),
        ({"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, None),
        ({"traceparent": f"{PARENT}\n"}, None),
        ({"traceparent": [PARENT]}, None),
        ({"tracestate": "a=1"}, None),
        ({}, None),
    ],
)
def test_what_is_no_trace_context_is_left_out(headers: dict[str, Any], trace: str | None) -> None:
    assert trace_of(headers) == trace
    assert trace_id_of(headers) == (None if trace is None else "0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize("trace", [None, PARENT, f'{PARENT} a="1",b=\\2'])
def test_an_event_carries_its_trace_and_is_the_same_text_however_it_is_made(trace: str | None) -> None:
    record = RECORD._replace(trace=trace)
    event = json.loads(event_json(record))
    assert event_json(record) == event_of(record).to_json()
    assert Event.model_validate(event) == event_of(record)
    Draft202012Validator(schemas()["enrollment.event.v1"]).validate(event)
    said = " ".join(event[name] for name in ("traceparent", "tracestate") if name in event)
    assert said == (trace or "")


def test_an_event_without_a_trace_is_the_text_that_it_was_before_there_were_traces() -> None:
    assert event_json(RECORD) == (
        '{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"/enrollment-worker",'
        '"type":"enrollment.rejected.v1","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json",'
        '"data":{"command_id":"00000000-0000-0000-0000-000000000007","command":null,"student_id":null,'
        '"course_ids":null,"issued_at":null,"source":null,"enrolled":[],"unenrolled":[],"unchanged":[],'
        '"superseded":[],"errors":[]}}'
    )
