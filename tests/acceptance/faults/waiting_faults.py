"""Workers killed while commands wait: for a course that comes while they arrive, and for their time."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.acceptance.faults.commands import COURSES, STUDENTS, SentCommand, single
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import Run, Scenario

COMMANDS: Final = 40  # that wait for one course
AHEAD: Final = 2.0  # seconds until the time of one comes, at most


def _killed_while_releasing(run: Run) -> None:
    """Send commands that wait, let their course come in their midst, and kill a worker when it decides them."""
    sender = Sender(run.harness.redis.url, run.sent_log)
    for number in range(run.count):
        run.harness.revive()
        course = 1_000_000 + run.rng.getrandbits(40)
        for place in range(COMMANDS):
            if place == COMMANDS // 2:
                with run.harness.database() as connection:
                    connection.execute("INSERT INTO courses (id) VALUES (%s)", [course])
            sender.send(single(_waits(run, course)))
        run.pause(0, 1.5)
        index = number % len(run.harness.workers)
        run.harness.workers[index].kill()
        run.injected += 1
        run.harness.start_worker(index)
    sender.close()


def _waits(run: Run, course: int) -> SentCommand:
    """Return a command that names a course which is not there yet; of some, the time has not come either."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "student_id": run.rng.choice(STUDENTS),
        "course_ids": [run.rng.choice(COURSES), course],
        "issued_at": (now - timedelta(seconds=run.rng.randrange(60))).isoformat(),
        "wait_until": (now + timedelta(hours=1)).isoformat(),
    }
    if run.rng.random() < 0.5:
        fields["effective_at"] = (now + timedelta(seconds=run.rng.uniform(-AHEAD, AHEAD))).isoformat()
    kind = run.rng.choice(["enroll", "unenroll", "replace"])
    return SentCommand(str(uuid.UUID(int=run.rng.getrandbits(128), version=4)), kind, fields)


SCENARIOS: Sequence[Scenario] = [
    Scenario("kill -9 while waiting commands are decided", 50, 1, _killed_while_releasing, seconds=12),
]
