"""An oracle of valid time, which shares no line with the fold, judges real workers over real servers.

Catalog and commands come in any order; commands are scheduled, repeated, withdrawn, not waited for any longer, split
into any messages, decided by two workers; some come as rows of an imported file. What has to come of each is told by a
few lines here, and the rows in the end are those of the commands that applied, one after the other in the order of
(effective_at or issued_at, id).
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from enrollment.commands import Command, Withdraw, as_fields, format_time
from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL, WITHDRAW
from models import awaited
from tasks.imports import run
from tasks.imports.plan import ImportRequest
from tasks.imports.start import start
from tasks.messages import Message
from tests.integration.conftest import message
from worker.publishing import Publisher
from worker.service import Service

STUDENTS, COURSES, NEVER = (1, 2, 3), (11, 12, 13, 14), 99
TASKS: Final = {"enroll": ENROLL, "unenroll": UNENROLL, "replace": REPLACE}
FAR: Final = "2999-01-01T00:00:00Z"
PATIENCE: Final = 60  # seconds for all that waits to be decided


@dataclass
class Said:
    """A command as it is sent, and what the model makes of it."""

    id: UUID
    kind: str
    student: int
    courses: list[int]
    fields: dict[str, str]
    eta: str | None
    may_be: set[str] = field(default_factory=set)  # its outcomes, as far as it has come; empty: it has not
    withdrawn_by: list[UUID] = field(default_factory=list)

    @property
    def scheduled(self) -> str | None:
        return self.fields.get("effective_at") or self.eta

    @property
    def needs(self) -> set[int]:
        return {self.student, *self.courses}

    def single(self) -> Message:
        said = {"student_id": self.student, "course_ids": self.courses, **self.fields}
        return Message(TASKS[self.kind], str(self.id), str(self.id), (), said, {"eta": self.eta} if self.eta else {})

    def item(self) -> dict[str, Any]:
        ids = {"student_id": self.student, "course_ids": self.courses, "command_id": str(self.id)}
        return {"command": self.kind, **ids, **self.fields}


def valid_time(applied: Iterable[tuple[datetime, UUID, str, int, Sequence[int]]]) -> set[tuple[int, int]]:
    """The model: the decisions in order of their time, then their id; the last one decides."""
    rows: set[tuple[int, int]] = set()
    for _, _, kind, student, courses in sorted(applied, key=lambda each: each[:2]):
        named = {(student, course) for course in courses}
        if kind == "replace":
            rows = {row for row in rows if row[0] != student}
        rows = rows - named if kind == "unenroll" else rows | named
    return rows


def some_commands(rng: random.Random, now: datetime) -> list[Said]:
    found = []
    for _ in range(rng.randrange(10, 40)):
        fields = {}
        if rng.random() < 0.8:
            fields["issued_at"] = (now - timedelta(hours=rng.randrange(4))).isoformat()
        if rng.random() < 0.7:
            fields["wait_until"] = FAR
        eta = None
        if rng.random() < 0.5:
            at = FAR
            if rng.random() < 0.8:  # before or after now
                at = (now + timedelta(seconds=rng.choice([-7200, -3600, rng.uniform(-2, 2)]))).isoformat()
                fields["wait_until"] = FAR  # else it would depend on the moment whether the catalog came in time
            if rng.random() < 0.5:
                eta = at
            else:
                fields["effective_at"] = at
        courses = rng.sample((*COURSES * 4, NEVER), rng.randrange(1, 4))
        kind = rng.choice(list(TASKS))
        id_ = UUID(int=rng.getrandbits(128), version=4)
        found.append(Said(id_, kind, rng.choice((*STUDENTS * 4, NEVER)), courses, fields, eta))
    return found


class Sender(list[Command]):
    """What an import sends its commands to."""

    def send(self, command: Command | Withdraw) -> UUID:
        assert not isinstance(command, Withdraw)
        self.append(command)
        return command.command_id

    def flush(self) -> None: ...


class World:
    """Two workers, and what the model expects of them."""

    def __init__(self, rng: random.Random, workers: Sequence[Service], engine: Engine, folder: Path) -> None:
        self.folder, self.imports = folder, 3
        self.unsent: list[tuple[datetime, UUID, str, int, Sequence[int]]] = []
        self.rng, self.workers, self.engine = rng, workers, engine
        self.now = datetime.now(UTC)
        self.said = some_commands(rng, self.now)
        self.known: set[int] = set()

    def send(self, chosen: Sequence[Said]) -> None:
        """Send these: as single messages, or those without an `eta` in one; some twice."""
        single = [it for it in chosen if it.eta or self.rng.random() < 0.5]
        bulk = [it for it in chosen if it not in single]
        sent = [it.single() for it in single + self.rng.sample(single, len(single) // 3)]
        if bulk:
            sent.append(message(APPLY, commands=[it.item() for it in bulk]))
        self.rng.shuffle(sent)
        for it in chosen:
            if not it.may_be:
                it.may_be = {"withdrawn"} if it.withdrawn_by else self.fate(it)
        self.rng.choice(self.workers).handle(sent)

    def fate(self, it: Said) -> set[str]:
        """Return what comes of a command that has just come, if nothing else happens."""
        waits = it.scheduled is not None and it.scheduled > self.now.isoformat()
        if not waits and "wait_until" not in it.fields and it.needs - self.known:
            return {"rejected"}
        return {"waiting"} if it.scheduled == FAR or NEVER in it.needs else {"applied"}

    def import_file(self) -> None:
        """Import a file whose rows take effect at any time. What something newer has decided already is not sent."""
        asked: dict[tuple[int, int], tuple[str, str]] = {}
        for _ in range(8):
            at = self.now + timedelta(seconds=self.rng.choice([-7200, -3600, self.rng.uniform(-2, 2)]))
            pair = self.rng.choice((*STUDENTS * 4, NEVER)), self.rng.choice((*COURSES * 4, NEVER))
            kind = self.rng.choice(("enroll", "unenroll"))
            asked[pair] = kind, format_time(at) if self.rng.random() < 0.8 else FAR
        lines = [",".join(map(str, (*pair, *said))) for pair, said in asked.items()]
        path = self.folder / f"{self.imports}.csv"
        path.write_text("\n".join(["student,course,action,effective_at", *lines]))
        request = ImportRequest(source=f"import/{path.stem}", wait_for_catalog=86_400)
        import_id = start(self.engine, path, request, at_once=True).import_id
        sent = Sender()
        run.apply(self.engine, import_id, sender=sent, by="test", check=False)
        said = {(it.student_id, *it.course_ids): as_fields(it) for it in sent}
        with self.engine.connect() as connection:
            found = connection.execute(text("SELECT * FROM import_rows WHERE import_id = :id"), {"id": import_id}).all()
        assert len(found) == len(asked)
        for row in found:
            pair = row.student_id, row.course_id
            kind, when = asked[pair]
            if pair in said:
                fields = {
                    **{name: said[pair][name] for name in ("issued_at", "wait_until", "source")},
                    "effective_at": when,
                }
                it = Said(row.command_id, kind, row.student_id, [row.course_id], fields, None)
                it.may_be = self.fate(it)
                self.said.append(it)
            else:
                self.unsent.append((datetime.fromisoformat(when), row.command_id, kind, pair[0], pair[1:]))
        for part in (sent, self.rng.sample(sent, len(sent) // 2)):
            if part:
                self.rng.choice(self.workers).handle([message(APPLY, commands=[as_fields(it) for it in part])])

    def load(self, id_: int) -> None:
        self.known.add(id_)
        table = "students" if id_ in STUDENTS else "courses"
        with self.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} (id) VALUES ({id_}) ON CONFLICT DO NOTHING"))

    def withdraw(self, it: Said) -> None:
        id_ = UUID(int=self.rng.getrandbits(128), version=4)
        it.withdrawn_by.append(id_)
        if it.may_be == {"applied"} and (it.scheduled or not it.needs - self.known):
            it.may_be = {"applied", "withdrawn"}  # it may have been decided a moment ago
        elif it.may_be and "rejected" not in it.may_be and len(it.may_be) == 1:
            it.may_be = {"withdrawn"}
        self.rng.choice(self.workers).handle([message(WITHDRAW, target=str(it.id), task_id=id_)])

    def give_up(self, it: Said) -> None:
        """End its wait for the catalog, as an operator does."""
        if it.scheduled or not it.needs - self.known or it.may_be not in ({"applied"}, {"waiting"}):
            return
        it.may_be = {"rejected"}
        with self.engine.begin() as connection:
            assert awaited.end_waits(connection, [it.id]) == 1
        self.workers[0].release()

    def live(self) -> None:
        """Let all of it happen, in any order."""
        unsent, ids = list(self.said), [*STUDENTS, *COURSES]
        self.rng.shuffle(unsent)
        self.rng.shuffle(ids)
        while unsent or ids or self.imports:
            what = self.rng.random()
            if what < 0.3 and unsent:
                count = self.rng.randrange(1, 9)
                self.send(unsent[:count] + [it for it in self.said if it.may_be and self.rng.random() < 0.1])
                unsent = unsent[count:]
            elif what < 0.5 and ids:
                self.load(ids.pop())
            elif what < 0.6:
                self.withdraw(self.rng.choice(self.said))
            elif what < 0.7:
                self.give_up(self.rng.choice(self.said))
            elif what < 0.8 and self.imports:
                self.import_file()
                self.imports -= 1
            else:
                self.rng.choice(self.workers).release()
        end = monotonic() + PATIENCE
        while self._undecided():
            assert monotonic() < end, "something waits that could be decided"
            for worker in self.workers:
                worker.release()
            sleep(0.05)
        for worker in self.workers:
            worker.relay(older_than=0)

    def _undecided(self) -> bool:
        ids = [it.id for it in self.said if it.may_be != {"waiting"}]
        with self.engine.connect() as connection:
            found = connection.execute(
                text("SELECT EXISTS (SELECT FROM deferred_commands WHERE command_id = ANY(:ids))"), {"ids": ids}
            )
            return bool(found.scalar_one())


@pytest.mark.parametrize("seed", range(15))
def test_the_end_is_what_valid_time_says_whenever_everything_comes(
    seed: int,
    worker_engine: Engine,
    engine: Engine,
    publisher: Publisher,
    events: Callable[[], Any],
    *,
    tmp_path: Path,
) -> None:
    workers = [Service(worker_engine, publisher) for _ in range(2)]
    world = World(random.Random(seed), workers, engine, tmp_path)  # noqa: S311
    world.live()
    with engine.connect() as connection:
        of = {row.command_id: row for row in connection.execute(text("SELECT * FROM commands"))}
        rows = {tuple(row) for row in connection.execute(text("SELECT student_id, course_id FROM student_courses"))}
        assert not connection.execute(text("SELECT * FROM dead_letters")).all()
    told = defaultdict(list)
    for event in events():
        told[UUID(event["id"])].append(event["type"].split(".")[1])

    for it in world.said:
        outcome = of[it.id].outcome
        assert outcome in it.may_be, it
        final = [] if outcome == "waiting" else [outcome]
        assert told[it.id] in (final, ["waiting", *final]), it
        assert [of[id_].outcome for id_ in it.withdrawn_by] == [
            "applied" if outcome == "withdrawn" else "rejected" for _ in it.withdrawn_by
        ]
        when = it.scheduled or it.fields.get("issued_at")
        assert when is None or of[it.id].issued_at in (None, datetime.fromisoformat(when)), it
    applied = [it for it in world.said if of[it.id].outcome == "applied"]
    assert rows == valid_time(
        [*((of[it.id].issued_at, it.id, it.kind, it.student, it.courses) for it in applied), *world.unsent]
    )
