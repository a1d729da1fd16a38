"""Workers of an older version and of this one, on one queue: under load, killed, with the migration in their midst.

The older one is built from a commit (OLD) as its wheels, and runs from a folder into which these are installed.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.oracle import Verdict, judge
from tests.acceptance.faults.producers import Traffic
from tests.acceptance.faults.sent_log import SentLog
from tests.acceptance.faults.waits import until
from tests.root import ROOT
from worker.local.process import Child
from worker.schema import upgrade

OLD: Final = os.environ.get("OLD", "")  # the commit
KILLS: Final = 6  # in each phase
SEED: Final = 20_261_129


@dataclass(frozen=True)
class Old:
    """The older version: the folder with its programs, and the newest revision of the schema that it knows."""

    program: Path
    revision: str


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    """Install the older version from its wheels, with what it needs, into a folder."""
    source, wheels, program = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "program"))
    archive = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(source)], input=archive, check=True)
    for project in source.glob("**/pyproject.toml"):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={wheels}", str(project.parent)]
        subprocess.run(build, check=True, capture_output=True)
    install = ["uv", "pip", "install", "--quiet", f"--python={sys.executable}", f"--target={program}"]
    constraint = f"--constraint={source / 'constraints.txt'}"
    subprocess.run([*install, constraint, *map(str, wheels.glob("*.whl"))], check=True)
    revisions = source.glob("migrations/versions/[0-9]*.py")
    return Old(program, max(path.name.partition("_")[0] for path in revisions))


def test_two_versions_work_on_one_queue_with_the_migration_in_their_midst(old: Old) -> None:
    log, rng = SentLog(), random.Random(SEED)  # noqa: S311 - it is to be repeatable
    with Harness(workers=0, revision=old.revision) as harness:
        harness.began = time.time() - 1
        older = [harness.new_worker(f"old{number}", folder=old.program) for number in (1, 2)]
        newer = [harness.new_worker(f"new{number}") for number in (1, 2)]
        with Traffic(lambda: harness.new_sender(log), SEED):
            start(harness, older)
            kill(harness, older, rng)
            start(harness, newer[:1])  # too early: it waits for the migration
            kill(harness, older, rng)
            upgrade(harness.database_url)
            start(harness, newer)
            kill(harness, [*older, *newer], rng)
            stop(newer)  # back
            kill(harness, older, rng)
            start(harness, newer)
            kill(harness, [*older, *newer], rng)
            stop(older)
            kill(harness, newer, rng)
        harness.drain()
        ended = [worker.name for worker in newer if not worker.running]
        verdict = judge(log, harness.seen())
        if not verdict.good:
            harness.keep_logs("upgrade")
    assert ended == []
    assert verdict == Verdict(log.commands)
    assert log.commands > 300


def start(harness: Harness, workers: Sequence[Child]) -> None:
    for worker in workers:
        if not worker.running:
            worker.log.write_bytes(b"")
            worker.start()
    for worker in workers:
        harness.until_ready(worker)


def stop(workers: Sequence[Child]) -> None:
    for worker in workers:
        worker.stop()


def kill(harness: Harness, workers: Sequence[Child], rng: random.Random) -> None:
    """Kill workers at random moments, and see that work goes on."""
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.1, 1.0))
        chosen = rng.choice(workers)
        chosen.kill()
        chosen.start()
    told = harness.told
    assert until(lambda: harness.told > told + 20, 60, soft=True), "nothing is applied any more"
