"""What the gateway decides by itself: what a client prefers, and how often it may ask."""

import pytest

from enrollment.errors import DeadLetterCode
from gateway.admin.template_filters import meaning
from gateway.authentication import Sessions
from gateway.preferences import preference_of
from gateway.problems import Problem
from gateway.rate_limit import Buckets
from gateway.submission import repeatable_id
from worker.credentials import Admin


@pytest.mark.parametrize(
    ("headers", "wait", "applied"),
    [
        ([], 5, None),
        (["wait=2"], 2, "wait=2"),
        (["respond-async"], 0, "respond-async"),
        (["respond-async, wait=10"], 10, "wait=10"),  # RFC 7240, section 4.1
        (["respond-async", "wait=10"], 10, "wait=10"),
        (["wait=100"], 30, "wait=30"),
        (["wait=0"], 0, "wait=0"),
        (['WAIT="3"; foo=bar'], 3, "wait=3"),
        (["handling=lenient,  Wait = 4 , x"], 4, "wait=4"),
        (["wait=1, wait=2"], 1, "wait=1"),
        (["wait=-1"], 5, None),
        (["wait=1.5"], 5, None),
        (["wait=" + "9" * 5000], 5, None),
        (["wait"], 5, None),
        (["wait=²"], 5, None),
        (["=;,,;=,\x00"], 5, None),
        (["wait = 5"], 5, "wait=5"),
        (['wait="6"', "wait=7"], 6, "wait=6"),
        (['respond-async; x="a, b", WAIT=7;y'], 7, "wait=7"),
        (['foo="a, wait=1, b", wait=8'], 8, "wait=8"),  # a comma in quotes separates nothing
        (['foo="\\", wait=1, \\"", wait=9'], 9, "wait=9"),
        (['wait="1\\2"'], 12, "wait=12"),
        (["foo; wait=1, respond-async"], 0, "respond-async"),  # a parameter is no preference
        (["Respond-Async;a=b"], 0, "respond-async"),
        (['x="unclosed, wait=4'], 4, "wait=4"),
        (['"' * 60_000 + '"\\' * 30_000], 5, None),
    ],
)
def test_preferences_are_read_as_the_standard_says(headers: list[str], wait: float, applied: str | None) -> None:
    assert preference_of(headers, 5) == (wait, applied)


def test_a_bucket_holds_two_seconds_and_fills_as_time_goes_by() -> None:
    now = 0.0
    buckets = Buckets(10, now=lambda: now)
    for _ in range(20):
        buckets.take("one")
    with pytest.raises(Problem) as refused:
        buckets.take("one")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    buckets.take("another")
    now = 0.1
    buckets.take("one")
    with pytest.raises(Problem):
        buckets.take("one")
    now = 1000.0
    for _ in range(20):
        buckets.take("one")
    with pytest.raises(Problem):
        buckets.take("one")


def test_names_without_end_take_no_memory_without_end() -> None:
    buckets = Buckets(1)
    for number in range(20_000):
        buckets.take(str(number))
    assert len(buckets._buckets) <= 10_000


def test_no_rate_is_no_limit() -> None:
    buckets = Buckets(0)
    for _ in range(1000):
        buckets.take("one")


def test_a_key_names_one_command_of_one_client_in_one_kind_of_request() -> None:
    asked = [("a", "PUT /x", "k"), ("b", "PUT /x", "k"), ("a", "POST /x", "k"), ("a", "PUT /x", "l")]
    assert len({repeatable_id(*each) for each in asked}) == len(asked)
    # Kept for ever: another id for the same key would be another command.
    assert (
        str(repeatable_id("portal", "POST /students/{student_id}/courses", "1"))
        == "754ae45f-1146-5170-8550-ebd4e8100f8d"
    )


def test_a_new_password_ends_the_sessions_of_the_old_one() -> None:
    before, after = (Sessions([Admin.create("ann", word)], "s" * 32) for word in ("first password", "second password"))
    session = before.log_in("ann", "first password")
    assert session is not None
    assert before.session_of(before.cookie_of(session)) == session
    assert after.session_of(before.cookie_of(session)) is None


@pytest.mark.parametrize("code", DeadLetterCode)
def test_every_dead_letter_code_has_a_meaning_for_people(code: DeadLetterCode) -> None:
    assert meaning(code)
