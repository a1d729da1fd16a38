import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrollment.commands import MAX_ID, Enroll, Kind, Replace, as_fields, parse_time, parse_uuid
from enrollment.errors import DeadLetterCode, ErrorCode
from enrollment.parsing import Invalid, Unidentified, content_hash, parse_many, parse_single, parse_withdraw

ID = UUID("0190f3a2-0000-7000-8000-000000000001")


def enroll(*args: Any, **kwargs: Any) -> Any:
    return parse_single(Kind.ENROLL, ID, args, kwargs)


def test_arguments_may_be_positional_or_named() -> None:
    by_name = enroll(student_id=42, course_ids=[101, 102])
    assert by_name == Enroll(command_id=ID, student_id=42, course_ids=(101, 102))
    assert enroll(42, [101, 102]) == enroll(42, course_ids=[101, 102]) == by_name


def test_a_course_named_twice_counts_once() -> None:
    assert enroll(1, [3, 2, 3]).course_ids == (3, 2)


def test_only_a_replace_may_have_no_courses() -> None:
    assert parse_single(Kind.REPLACE, ID, [1, []], {}) == Replace(command_id=ID, student_id=1, course_ids=())
    assert isinstance(enroll(1, []), Invalid)


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", None, 0, -1, MAX_ID + 1, pytest.param(10**5000, id="huge"), [1], {}, float("nan"), "１"]
)
def test_an_id_is_an_integer_in_range_and_nothing_else(value: object) -> None:
    for invalid, field in ((enroll(value, [1]), "student_id"), (enroll(1, [1, value]), "course_ids")):
        assert isinstance(invalid, Invalid)
        assert invalid.rejection.code is ErrorCode.INVALID_COMMAND
        assert invalid.rejection.fields == (field,)
        assert f"{field} must be" in invalid.rejection.message


@pytest.mark.parametrize("value", [5, "12", {"1": 1}, None, [[1]], list(range(1, 1002))])
def test_courses_are_a_list_of_at_most_a_thousand_ids(value: object) -> None:
    assert enroll(1, value).rejection.fields == ("course_ids",)


def test_the_largest_command_is_valid() -> None:
    assert len(enroll(MAX_ID, list(range(1, 1001))).course_ids) == 1000


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T09:30:00Z", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
        ("2026-01-31t10:30:00.123456789+01:00", datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)),
        ("2026-01-31 09:30:00-00:00", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
    ],
)
def test_times_are_rfc_3339(text: str, time: datetime) -> None:
    assert enroll(1, [1], issued_at=text).issued_at == parse_time(text) == time


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T09:30:00",
        "2026-01-31",
        "2026-01-31T09:30Z",
        "2026-13-31T09:30:00Z",
        "2026-01-31T09:30:00Z\n",
        "0001-01-01T00:00:00+01:00",
        "1767225600",
        1767225600,
        True,
        "",
        "now",
        "٢٠٢٦-01-31T09:30:00Z",
        datetime(2026, 1, 1),  # noqa: DTZ001
    ],
)
def test_anything_else_is_no_time(value: object) -> None:
    assert enroll(1, [1], issued_at=value).rejection.fields == ("issued_at",)


@pytest.mark.parametrize("value", ["", "x" * 65, "a b", "a\n", "é", 5, ["a"]])
def test_a_source_is_short_and_plain(value: object) -> None:
    assert enroll(1, [1], source=value).rejection.fields == ("source",)
    assert enroll(1, [1], source="portal:v2/eu-west.1_a").source == "portal:v2/eu-west.1_a"


def test_unknown_fields_are_named() -> None:
    invalid = enroll(1, [1], course_id=2, studnet_id=3)
    assert invalid.rejection.fields == ("course_id", "studnet_id")
    assert "course_id is not a field" in invalid.rejection.message


@pytest.mark.parametrize("name", ["command_id", "command"])
def test_what_the_envelope_says_is_no_field_of_a_single_command(name: str) -> None:
    assert name in enroll(1, [1], **{name: "enroll"}).rejection.fields


def test_too_many_positions_and_a_field_given_twice_are_errors() -> None:
    assert enroll(1, [1], "x").rejection.fields == ("args",)
    assert enroll(1, [1], student_id=1).rejection.fields == ("student_id",)


def test_what_an_invalid_command_said_well_is_kept() -> None:
    invalid = enroll(42, [1, True], issued_at="2026-01-01T00:00:00Z", source="portal")
    assert isinstance(invalid, Invalid)
    assert (invalid.student_id, invalid.course_ids, invalid.source) == (42, None, "portal")
    assert invalid.issued_at == datetime(2026, 1, 1, tzinfo=UTC)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)
_names = (
    st.sampled_from(["student_id", "course_ids", "issued_at", "source", "command_id", "command", "target"]) | st.text()
)


@given(st.sampled_from(Kind), st.lists(_json, max_size=3), st.dictionaries(_names, _json, max_size=4))
def test_no_arguments_whatever_raise(kind: Kind, args: list[Any], kwargs: dict[str, Any]) -> None:
    withdraws = kind is Kind.WITHDRAW
    request = parse_withdraw(ID, args, kwargs) if withdraws else parse_single(kind, ID, args, kwargs)
    content_hash(request)
    if isinstance(request, Invalid):
        request.payload.encode("ascii")
        request.rejection.message.encode()
        assert "\x00" not in request.rejection.message


@given(_json)
def test_no_bulk_whatever_raises(value: Any) -> None:
    for request in parse_many([], {"commands": [value]}):
        assert isinstance(request, Unidentified | Invalid)


def test_each_command_of_a_bulk_is_judged_by_itself() -> None:
    good = {"command_id": str(ID), "command": "enroll", "student_id": 1, "course_ids": [1]}
    first, second, third, fourth = parse_many(
        [], {"commands": [good, {**good, "command": "drop"}, {**good, "command_id": "x"}, 5]}
    )
    assert first == Enroll(command_id=ID, student_id=1, course_ids=(1,))
    assert isinstance(second, Invalid)
    assert (second.command, second.rejection.fields) == (None, ("command",))
    assert isinstance(third, Unidentified)
    assert third.code is DeadLetterCode.COMMAND_ID_MISSING
    assert isinstance(fourth, Unidentified)
    assert fourth.code is DeadLetterCode.INVALID_COMMAND


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([], {}), ([[]], {}), ([], {"commands": []}), ([], {"commands": {}}), ([], {"commands": [1], "x": 1}),
     ([], {"commands": [{}] * 1001})],
)  # fmt: skip
def test_a_bulk_that_is_no_list_of_commands_is_one_dead_letter(args: list[Any], kwargs: dict[str, Any]) -> None:
    [only] = parse_many(args, kwargs)
    assert isinstance(only, Unidentified)


def test_a_command_survives_the_way_through_json() -> None:
    command = Enroll(command_id=ID, student_id=1, course_ids=(2, 1), issued_at=parse_time("2026-01-01T00:00:00Z"))
    [back] = parse_many([], {"commands": [json.loads(json.dumps(as_fields(command)))]})
    assert back == command


def test_equal_content_has_an_equal_hash() -> None:
    one = enroll(1, [1, 2], issued_at="2026-01-01T00:00:00Z")
    assert content_hash(one) == content_hash(enroll(1, [2, 1, 2], issued_at="2026-01-01T01:00:00+01:00"))
    others = [enroll(1, [1]), enroll(2, [1, 2]), enroll(1, [1, 2]), enroll(1, [1, 2], source="a"), enroll(1)]
    assert len({content_hash(request) for request in [one, *others]}) == 1 + len(others)


def test_hashes_are_kept_for_years_so_they_do_not_change() -> None:
    request = enroll(42, [102, 101], issued_at="2026-01-31T09:30:00Z", source="portal")
    assert content_hash(request).hex() == "cc22a6e65d85c41bd531eea19e5ecd9a"


def test_a_uuid_may_be_written_with_or_without_hyphens() -> None:
    some = uuid4()
    assert parse_uuid(str(some).upper()) == parse_uuid(some.hex) == some
    for wrong in (f"{{{some}}}", some.urn, str(some)[:-1], "", None, 5, f"{some}\n"):
        with pytest.raises(ValueError, match="not a UUID"):
            parse_uuid(wrong)


def test_a_million_faults_are_told_as_one() -> None:
    """Each of them as an error of its own would take a gigabyte."""
    said = {"student_id": 1, "course_ids": [{}] * 100_000}
    tracemalloc.start()
    request = parse_single(Kind.ENROLL, uuid4(), (), said)
    fields = parse_single(Kind.ENROLL, uuid4(), (), {f"f{number}": 0 for number in range(100_000)})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(request, Invalid)
    assert request.rejection.fields == ("course_ids",)
    assert isinstance(fields, Invalid)
    assert fields.rejection.fields == ("student_id", "course_ids", *(f"f{number}" for number in range(8)))
    assert peak < 50_000_000
