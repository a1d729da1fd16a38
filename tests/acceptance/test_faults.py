"""A little of every fault (see docs/faults.md); `make chaos` does it in earnest. And the judge is judged."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.faults.commands import Message, SentCommand
from tests.acceptance.faults.oracle import Seen, judge
from tests.acceptance.faults.parallel import Parallel
from tests.acceptance.faults.scenario import Scenario
from tests.acceptance.faults.sent_log import SentLog
from tests.acceptance.faults.table import SHORT, details
from tests.tools import do_without

SEED = 20_260_131
PROCESSES = 3


@pytest.fixture(scope="module")
def rows() -> Iterator[Parallel]:
    """Start all rows, a few side by side; each test waits for its own."""
    orders = [(row, row.short) for row in SHORT]
    with Parallel(orders, seed=SEED, processes=PROCESSES, told=lambda _: None, starts="forks") as running:
        yield running


@pytest.mark.timeout(400)  # the first to be asked for may be the last to run
@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_nothing_is_lost_doubled_or_wrong(row: Scenario, rows: Parallel) -> None:
    outcome = rows.outcome(row.name, timeout=390)
    if outcome.skipped:
        do_without(outcome.skipped)
    assert outcome.good, details(outcome)


# --- the judge sees what it is there to see

ENROLL, REUSED, INVALID = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 4))
TIME = "2026-01-31T09:30:00+00:00"
FIELDS: dict[str, Any] = {"student_id": 1, "course_ids": [2], "issued_at": TIME}


def row_of(command_id: str, **changes: Any) -> dict[str, Any]:
    row = {"command": "enroll", "student_id": 1, "course_ids": [2], "source": None, "outcome": "applied", "errors": []}
    effects: dict[str, Any] = {"enrolled": [2], "unenrolled": [], "unchanged": [], "superseded": []}
    return {**row, **effects, "command_id": command_id, "issued_at": datetime.fromisoformat(TIME), **changes}


def event_of(row: dict[str, Any]) -> dict[str, Any]:
    data = {**row, "issued_at": row["issued_at"] and row["issued_at"].isoformat()}
    return {"id": row["command_id"], "type": f"enrollment.{row['outcome']}.v1", "data": data}


def letter(code: str, command_id: str | None = None, payload: str = "") -> dict[str, Any]:
    return {"code": code, "command_id": command_id, "task": None, "payload": payload, "headers": "{}"}


REFUSED = {"outcome": "rejected", "errors": [{"code": "invalid_command"}], "enrolled": []}
SCENARIOS = [
    row_of(ENROLL),
    row_of(REUSED, enrolled=[], unchanged=[2]),
    row_of(INVALID, **REFUSED, student_id=None, course_ids=None, issued_at=None),
]
LETTERS = [letter("command_id_reused", REUSED), letter("invalid_command", INVALID), letter("x", payload="marker-1")]
GOOD = Seen(
    pairs={(1, 2)},
    commands={row["command_id"]: row for row in SCENARIOS},
    events=[event_of(row) for row in SCENARIOS],
    letters=LETTERS,
    began=datetime(2026, 1, 1, tzinfo=UTC),
    now=datetime(2027, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def sent_log() -> SentLog:
    sent_log = SentLog()
    for said in (
        SentCommand(ENROLL, "enroll", FIELDS),
        SentCommand(REUSED, "enroll", FIELDS),
        SentCommand(REUSED, "enroll", {**FIELDS, "course_ids": [3]}),
        SentCommand(INVALID, "enroll", {}, "invalid_command"),
    ):
        message = Message("", "", {}, (said,))
        sent_log.sending(message)
        sent_log.sent(message)
    marked = Message("", "", {}, (), ("marker-1",))
    sent_log.sending(marked)
    sent_log.sent(marked)
    return sent_log


def test_the_judge_finds_nothing_where_nothing_is(sent_log: SentLog) -> None:
    assert judge(sent_log, GOOD).good


def test_the_judge_sees_a_command_that_was_decided_before_its_time() -> None:
    said = SentCommand(ENROLL, "enroll", {**FIELDS, "effective_at": TIME})
    sent_log = SentLog()
    sent_log.sending(Message("", "", {}, (said,)))
    for decided, good in (
        (datetime(2026, 1, 31, 9, 29, tzinfo=UTC), False),
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), True),
    ):
        row = row_of(ENROLL, processed_at=decided)
        seen = replace(GOOD, commands={ENROLL: row}, events=[event_of(row)], letters=[])
        assert judge(sent_log, seen).good is good


FAULTS: dict[str, tuple[str, Callable[[], Seen]]] = {
    "no row of a command": (
        "lost",
        lambda: replace(GOOD, commands={k: v for k, v in GOOD.commands.items() if k != ENROLL}),
    ),
    "no event": ("lost", lambda: replace(GOOD, events=GOOD.events[1:])),
    "two events": ("duplicated", lambda: replace(GOOD, events=[*GOOD.events, GOOD.events[0]])),
    "an event with another outcome": (
        "wrong",
        lambda: replace(GOOD, events=[event_of({**SCENARIOS[0], "outcome": "rejected"}), *GOOD.events[1:]]),
    ),
    "a row that is missing": ("wrong", lambda: replace(GOOD, pairs=set())),
    "a row too many": ("wrong", lambda: replace(GOOD, pairs={(1, 2), (1, 3)})),
    "another stamp": (
        "wrong",
        lambda: replace(GOOD, commands={**GOOD.commands, ENROLL: row_of(ENROLL, issued_at=None)}),
    ),
    "no dead letter of an invalid command": ("lost", lambda: replace(GOOD, letters=[LETTERS[0], LETTERS[2]])),
    "no dead letter of a reused id": ("lost", lambda: replace(GOOD, letters=LETTERS[1:])),
    "no dead letter of what has no id": ("lost", lambda: replace(GOOD, letters=LETTERS[:2])),
    "two dead letters of one message": ("duplicated", lambda: replace(GOOD, letters=[*LETTERS, LETTERS[2]])),
    "a valid command as a dead letter": (
        "wrong",
        lambda: replace(GOOD, letters=[*LETTERS, letter("too_many_deliveries", ENROLL)]),
    ),
    "a dead letter of nothing": ("wrong", lambda: replace(GOOD, letters=[*LETTERS, letter("expired")])),
    "something left in a queue": ("lost", lambda: replace(GOOD, leftovers=["1 in 'unacked'"])),
    "a worker that ended by itself": ("wrong", lambda: replace(GOOD, ended=["worker1 with 1"])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_judge_sees(fault: str, sent_log: SentLog) -> None:
    sort, made = FAULTS[fault]
    assert getattr(judge(sent_log, made()), sort)
