import json
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from enrollment.commands import MODELS, Enroll, Kind
from enrollment.errors import ErrorCode, Rejection
from enrollment.events import Event, event_json, event_of
from enrollment.fold import Effects, Record, fold
from enrollment.parsing import Request, parse_single
from enrollment.schema import schemas
from enrollment.waiting import Waiting, WaitingFor
from tests.unit.strategies import empty_state

ID = UUID("0190f3a2-0000-7000-8000-000000000001")
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def decide(request: Request) -> Record:
    [verdict] = fold(empty_state(), [request], NOW).verdicts
    assert isinstance(verdict, Record)
    return verdict


def test_an_applied_command_as_it_stands_on_the_stream() -> None:
    event = event_of(decide(Enroll(command_id=ID, student_id=1, course_ids=(11, 10), issued_at=NOW, source="portal")))
    assert json.loads(event.to_json()) == {
        "specversion": "1.0",
        "id": str(ID),
        "source": "/enrollment-worker",
        "type": "enrollment.applied.v1",
        "subject": "students/1",
        "time": "2026-01-31T09:30:00Z",
        "datacontenttype": "application/json",
        "data": {
            "command_id": str(ID),
            "command": "enroll",
            "student_id": 1,
            "course_ids": [11, 10],
            "issued_at": "2026-01-31T09:30:00Z",
            "source": "portal",
            "enrolled": [10, 11],
            "unenrolled": [],
            "unchanged": [],
            "superseded": [],
            "errors": [],
        },
    }


def test_what_an_invalid_command_did_not_say_is_null_and_then_there_is_no_subject() -> None:
    event = json.loads(event_of(decide(parse_single(Kind.ENROLL, ID, [], {}))).to_json())
    assert "subject" not in event
    assert event["type"] == "enrollment.rejected.v1"
    assert [event["data"][name] for name in ("student_id", "course_ids", "issued_at", "source")] == [None] * 4


def test_every_event_fits_the_published_schema_and_reads_back() -> None:
    validator = Draft202012Validator(schemas()["enrollment.event.v1"])
    requests = [
        parse_single(kind, ID, args, {})
        for kind in MODELS
        for args in ([], [1, [10]], [1, [99, 98]], [77, [10]], [True, "x"], [1, []])
    ]
    for request in requests:
        event = event_of(decide(request))
        validator.validate(json.loads(event.to_json()))
        assert Event.model_validate_json(event.to_json()) == event


_texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_ids = st.lists(st.integers(1, 2**63 - 1), max_size=4).map(tuple)
_times = st.datetimes(timezones=st.just(UTC))
_rejections = st.builds(
    Rejection, code=st.sampled_from(ErrorCode), message=_texts.map(str), ids=_ids, fields=st.tuples(_texts.map(str))
)
_records = st.builds(
    Record,
    command_id=st.uuids(),
    command=st.none() | st.sampled_from(Kind),
    student_id=st.none() | st.integers(1, 2**63 - 1),
    course_ids=st.none() | _ids,
    issued_at=st.none() | _times,
    source=_texts,
    outcome=st.sampled_from(["applied", "rejected", "waiting", "withdrawn"]),
    effects=st.builds(Effects, _ids, _ids, _ids, _ids),
    errors=st.lists(_rejections, max_size=2).map(tuple),
    processed_at=_times,
    content_hash=st.just(b""),
    waiting=st.none() | st.builds(Waiting, waiting_for=st.tuples(st.builds(WaitingFor, ids=_ids)), until=_times),
    target=st.none() | st.uuids(),
)


@given(_records)
def test_what_the_worker_writes_is_what_the_model_says(record: Record) -> None:
    assert event_json(record) == event_of(record).to_json()
    assert "\n" not in event_json(record), "the events of a batch travel one per line"
