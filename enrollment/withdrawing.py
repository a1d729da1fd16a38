"""What becomes of a command that is withdrawn, and of the withdraw. Pure: no I/O, no clock."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from enrollment.commands import Kind, Withdraw
from enrollment.errors import already_decided
from enrollment.fold import WITHDRAWN, Effects, Record, Repeat, Reused, Verdict
from enrollment.parsing import content_hash
from enrollment.state import BEFORE_ALL

Known = Mapping[UUID, Record]


def withdraw(known: Known, requests: Sequence[Withdraw], now: datetime) -> tuple[list[Verdict], list[Record]]:
    """Return a verdict for each request, and the records of the commands that are withdrawn by them.

    `known` has the records of the requests and their targets that are there. Of a target that is not, nothing is known
    but that it is withdrawn: when it comes, it is a repeat.
    """
    records = dict(known)
    verdicts: list[Verdict] = []
    withdrawn: list[Record] = []
    for request in requests:
        content = content_hash(request)
        seen = records.get(request.command_id)
        if seen is not None:
            same = seen.content_hash in (content, WITHDRAWN)
            verdicts.append(Repeat(request.command_id) if same else Reused(request))
            continue
        target = records.get(request.target)
        if request.target != request.command_id and (target is None or target.outcome == "waiting"):
            target = _withdrawn(request.target, target, now)
            records[request.target] = target
            withdrawn.append(target)
        verdict = _record(request, target, now, content)
        records[request.command_id] = verdict
        verdicts.append(verdict)
    return verdicts, withdrawn


def _withdrawn(command_id: UUID, waiting: Record | None, now: datetime) -> Record:
    if waiting is not None:
        return waiting._replace(outcome="withdrawn", waiting=None, processed_at=now)
    return Record(command_id, None, None, None, None, None, "withdrawn", Effects(), (), now, WITHDRAWN)


def _record(request: Withdraw, target: Record | None, now: datetime, content: bytes) -> Record:
    is_done = target is not None and target.outcome == "withdrawn"
    errors = () if is_done else (already_decided(request.target, _said(target)),)
    return Record(
        command_id=request.command_id,
        command=Kind.WITHDRAW,
        student_id=None,
        course_ids=None,
        issued_at=None,
        source=request.source,
        outcome="applied" if is_done else "rejected",
        effects=Effects(),
        errors=errors,
        processed_at=now,
        content_hash=content,
        target=request.target,
    )


def _said(target: Record | None) -> str:
    if target is None:
        return "itself a withdraw"
    return target.outcome if target.processed_at > BEFORE_ALL.issued_at else "decided long ago"
