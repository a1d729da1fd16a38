"""The judge. It knows the rule of stamps in its own few lines, and nothing of the code that it judges."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.acceptance.faults.commands import APPLIED, INVALID, SentCommand
from tests.acceptance.faults.sent_log import SentLog, content_of

Stamped = tuple[datetime, UUID, str, int, Sequence[int]]
REUSED = "command_id_reused"
WAITING = "enrollment.waiting.v1"
EFFECTS = ("enrolled", "unenrolled", "unchanged", "superseded")


@dataclass(frozen=True)
class Seen:
    """What the world looks like after a run: rows as they are, events and dead letters as they were told."""

    pairs: set[tuple[int, int]]
    commands: Mapping[str, Mapping[str, Any]]  # id -> row of `commands`
    events: Sequence[Mapping[str, Any]]
    letters: Sequence[Mapping[str, Any]]  # rows of `dead_letters`
    leftovers: Sequence[str] = ()  # what still lies in a queue, an unacked record or the outbox
    ended: Sequence[str] = ()  # workers that ended by themselves
    began: datetime | None = None
    now: datetime | None = None


@dataclass
class Verdict:
    """What is wrong, a sentence each. Good when nothing is."""

    commands: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)


def enrolled(stamped: Iterable[Stamped]) -> set[tuple[int, int]]:
    """Return the pairs that these commands leave: in the order of their stamps, one after the other."""
    pairs: set[tuple[int, int]] = set()
    for _, _, kind, student, courses in sorted(stamped, key=lambda each: each[:2]):
        if kind == "replace":
            pairs = {pair for pair in pairs if pair[0] != student}
        if kind == "unenroll":
            pairs -= {(student, course) for course in courses}
        else:
            pairs |= {(student, course) for course in courses}
    return pairs


def judge(sent_log: SentLog, seen: Seen) -> Verdict:
    """Compare what was said with what came of it."""
    verdict = Verdict(sent_log.commands)
    standing = _standing(sent_log, seen, verdict)
    _check_rows(standing, seen, verdict)
    _check_events(seen, verdict)
    _check_letters(sent_log, standing, seen, verdict)
    verdict.lost += [f"left behind: {each}" for each in seen.leftovers]
    verdict.wrong += [f"ended by itself: {each}" for each in seen.ended]
    return verdict


def _standing(sent_log: SentLog, seen: Seen, verdict: Verdict) -> dict[str, SentCommand]:
    """Return for each processed command which of the things said under its id stands."""
    for command_id in seen.commands.keys() - sent_log.said.keys():
        verdict.wrong.append(f"command {command_id} was never sent")
    standing: dict[str, SentCommand] = {}
    for command_id, variants in sent_log.said.items():
        row = seen.commands.get(command_id)
        if row is None:
            if any((command_id, content) in sent_log.confirmed for content in variants):
                verdict.lost.append(f"command {command_id}: no row ({next(iter(variants))})")
            continue
        fitting = [said for said in variants.values() if _fits(said, row, seen)]
        if fitting:
            standing[command_id] = fitting[0]
        else:
            verdict.wrong.append(f"command {command_id}: what is stored is not what was said: {row}")
    return standing


def _fits(said: SentCommand, row: Mapping[str, Any], seen: Seen) -> bool:
    codes = [error["code"] for error in row["errors"]]
    outcome = APPLIED if row["outcome"] == APPLIED and not codes else ",".join(codes)
    if outcome != said.ends or row["command"] != said.kind:
        return False
    if said.ends == INVALID:
        return True
    fields = said.fields
    if "effective_at" in fields and row["processed_at"] < datetime.fromisoformat(fields["effective_at"]):
        return False  # it was decided before its time
    same = (row["student_id"], set(row["course_ids"]), row["source"]) == (
        fields["student_id"],
        set(fields["course_ids"]),
        fields.get("source"),
    )
    return (
        same
        and _stamp_fits(fields.get("effective_at", fields.get("issued_at")), row["issued_at"], seen)
        and _effects_fit(said, row)
    )


def _stamp_fits(said: str | None, stored: datetime, seen: Seen) -> bool:
    if said is not None:
        return stored == datetime.fromisoformat(said)
    return seen.began is None or seen.now is None or seen.began <= stored <= seen.now


def _effects_fit(said: SentCommand, row: Mapping[str, Any]) -> bool:
    """Each course has exactly one effect; only a replace also has effects on courses that it does not name."""
    effects = Counter(course for effect in EFFECTS for course in row[effect])
    if said.ends != APPLIED:
        return not effects
    named = set(said.fields["course_ids"])
    others_allowed = said.kind == "replace"
    return set(effects.values()) <= {1} and (named <= effects.keys() if others_allowed else named == effects.keys())


def _check_rows(standing: Mapping[str, SentCommand], seen: Seen, verdict: Verdict) -> None:
    from_said = enrolled(
        (
            seen.commands[command_id]["issued_at"],
            UUID(command_id),
            said.kind,
            said.fields["student_id"],
            said.fields["course_ids"],
        )
        for command_id, said in standing.items()
        if said.ends == APPLIED
    )
    verdict.wrong += [f"pair {pair} is missing" for pair in sorted(from_said - seen.pairs)]
    verdict.wrong += [f"pair {pair} should not be there" for pair in sorted(seen.pairs - from_said)]
    told = [event["data"] for event in seen.events if event["type"] == "enrollment.applied.v1"]
    from_events = enrolled(
        (
            datetime.fromisoformat(data["issued_at"]),
            UUID(data["command_id"]),
            data["command"],
            data["student_id"],
            data["course_ids"],
        )
        for data in told
    )
    if from_events != seen.pairs:
        verdict.wrong.append(f"a consumer of the events sees other rows: {sorted(from_events ^ seen.pairs)[:5]}")


def _check_events(seen: Seen, verdict: Verdict) -> None:
    waiting = [event for event in seen.events if event["type"] == WAITING]
    final = [event for event in seen.events if event["type"] != WAITING]
    for of_a_sort in (waiting, final):
        told = Counter(event["id"] for event in of_a_sort)
        verdict.duplicated += [f"command {id_}: {count} events" for id_, count in told.items() if count > 1]
    for command_id in seen.commands.keys() - {event["id"] for event in final}:
        verdict.lost.append(f"command {command_id}: no event")
    verdict.wrong += [f"event {e['id']} is of no command" for e in waiting if e["id"] not in seen.commands]
    for event in final:
        row = seen.commands.get(event["id"])
        if row is None:
            verdict.wrong.append(f"event {event['id']} is of no command")
        elif not _tells(event, row):
            verdict.wrong.append(f"event {event['id']} tells something else than its row: {event}")


def _tells(event: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    data = event["data"]
    issued_at = data["issued_at"] and datetime.fromisoformat(data["issued_at"])
    same = all(data[name] == row[name] for name in ("command", "student_id", "course_ids", "source", *EFFECTS))
    codes = [error["code"] for error in data["errors"]] == [error["code"] for error in row["errors"]]
    kind = str(event["type"]).removeprefix("enrollment.").removesuffix(".v1")
    return same and codes and issued_at == row["issued_at"] and kind == row["outcome"]


def _check_letters(sent_log: SentLog, standing: Mapping[str, SentCommand], seen: Seen, verdict: Verdict) -> None:
    of_command: defaultdict[str, Counter[str]] = defaultdict(Counter)
    of_marker: Counter[str] = Counter()
    for letter in seen.letters:
        # A message is quoted in the headers of all its dead letters, so an id says more than a marker.
        command_id = str(letter["command_id"])
        marker = next((word for word in _words(letter) if word in sent_log.marked), None)
        if command_id in sent_log.said:
            of_command[command_id][letter["code"]] += 1
        elif marker is not None:
            of_marker[marker] += 1
        else:
            shown = f"{letter['code']} {command_id} {letter['task']} {str(letter['payload'])[:200]}"
            verdict.wrong.append(f"dead letter of nothing that was said: {shown}")
    for marker, sent in sent_log.marked.items():
        if not of_marker[marker] and marker in sent_log.marked_confirmed:
            verdict.lost.append(f"no dead letter of {marker}")
        if of_marker[marker] > sent:
            verdict.duplicated.append(f"{of_marker[marker]} dead letters of {marker}, which was sent {sent} times")
    for command_id, said in standing.items():
        _check_letters_of(command_id, said, sent_log, of_command[command_id], verdict)


def _check_letters_of(
    command_id: str, said: SentCommand, sent_log: SentLog, letters: Counter[str], verdict: Verdict
) -> None:
    due = Counter({INVALID: 1}) if said.ends == INVALID else Counter()
    others = [content for content in sent_log.said[command_id] if content != content_of(said)]
    confirmed = [content for content in others if (command_id, content) in sent_log.confirmed]
    least, most = due + Counter({REUSED: len(confirmed)}), due + Counter({REUSED: len(others)})
    if least - letters:
        verdict.lost.append(f"command {command_id}: dead letters {dict(letters)}, not {dict(least)}")
    for code, count in (letters - most).items():
        place = verdict.duplicated if code in most else verdict.wrong
        place.append(f"command {command_id}: {count} dead letters {code} too many")


def _words(letter: Mapping[str, Any]) -> Iterable[str]:
    """Every word that may be a marker, wherever in a dead letter it was kept."""
    return re.findall(r"marker-[0-9a-f-]+", f"{letter['payload']} {letter['headers']}")


def as_events(entries: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [json.loads(entry["event"]) for entry in entries]
