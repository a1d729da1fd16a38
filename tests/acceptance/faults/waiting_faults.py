"""Commands that wait, for courses that come meanwhile and for their time: workers killed, racing, with wrong clocks."""

import signal
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from tests.acceptance.faults.clock import shifted
from tests.acceptance.faults.commands import COURSES, STUDENTS, SentCommand, single
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import PATIENCE, Run, Scenario
from tests.acceptance.faults.waits import until

COMMANDS: Final = 40  # that wait for one course
AHEAD: Final = 2.0  # seconds until the time of one comes, at most


def _killed_while_releasing(run: Run) -> None:
    """Send commands that wait, let their course come in their midst, and kill a worker when it decides them."""
    sender = Sender(run.harness.redis.url, run.sent_log)
    for number in range(run.count):
        run.harness.revive()
        _in_the_midst(run, sender)
        run.pause(0, 1.5)
        index = number % len(run.harness.workers)
        run.harness.workers[index].kill()
        run.injected += 1
        run.harness.start_worker(index)
    sender.close()


def _race(run: Run) -> None:
    """Load courses, from two threads, while commands for them arrive: each a moment before or after."""
    sender = Sender(run.harness.redis.url, run.sent_log)
    for _ in range(run.count):
        courses = [_new_course(run) for _ in range(COMMANDS)]
        said = [single(_waits(run, course)) for course in courses for _ in range(2)]
        run.rng.shuffle(said)
        with ThreadPoolExecutor(2) as pool:
            loaded = [pool.submit(_load, run, courses[half::2], run.fork()) for half in range(2)]
            for command in said:
                sender.send(command)
            for each in loaded:
                each.result()
        run.injected += 1
    sender.close()


def _two_releasers(run: Run) -> None:
    """Let a course come for which many commands wait while both workers are stopped, and let both go on at once."""
    sender = Sender(run.harness.redis.url, run.sent_log)
    for _ in range(run.count):
        course = _new_course(run)
        for _ in range(4 * COMMANDS):
            sender.send(single(_waits(run, course)))
        until(lambda: not run.harness.queued, PATIENCE, soft=True)
        for worker in run.harness.workers:
            worker.send(signal.SIGSTOP)
        _load(run, [course], run.rng)
        run.pause(0, 1)
        for worker in run.harness.workers:
            worker.send(signal.SIGCONT)
        run.injected += 1
        run.until_work_goes_on()
    sender.close()


def _clocks_apart(run: Run) -> None:
    """Let commands wait while the clock of one worker is two hours ahead, and that of another two hours behind."""
    sender = Sender(run.harness.redis.url, run.sent_log)
    with shifted(run, "+2h"), shifted(run, "-2h"):
        for _ in range(run.count):
            _in_the_midst(run, sender)
            run.pause(AHEAD, 2 * AHEAD)
            run.injected += 1
    sender.close()


def _in_the_midst(run: Run, sender: Sender) -> None:
    course = _new_course(run)
    for place in range(COMMANDS):
        if place == COMMANDS // 2:
            _load(run, [course], run.rng)
        sender.send(single(_waits(run, course)))


def _new_course(run: Run) -> int:
    return 1_000_000 + run.rng.getrandbits(40)


def _load(run: Run, courses: Sequence[int], rng: Random) -> None:
    with run.harness.database() as connection:
        for course in courses:
            connection.execute("INSERT INTO courses (id) VALUES (%s)", [course])
            if len(courses) > 1:
                time.sleep(rng.uniform(0, 0.05))


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
    Scenario("courses loaded while commands for them arrive", 20, 1, _race, seconds=8),
    Scenario("two workers release at once", 20, 1, _two_releasers, traffic=False, seconds=10),
    Scenario("clocks four hours apart, and commands wait", 20, 1, _clocks_apart, seconds=14),
]
