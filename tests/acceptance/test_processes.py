"""`celery -A worker worker -c N`: N processes, one program to the person who starts, stops and watches it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery import Celery

from tests.acceptance.conftest import Outside
from tests.eventually import eventually
from tests.root import ROOT
from worker.local.process import Child, run
from worker.local.stack import Stack, environment

CELERY = [sys.executable, "-m", "celery", "-A", "worker"]
ENROLL = "enrollment.enroll.v1"
PATIENCE = 60.0  # seconds; several processes start on a busy machine

Start = Callable[..., Child]

pytestmark = pytest.mark.timeout(300)  # each starts a handful of workers: half a minute, and several on a busy machine


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """Give servers that no other worker works with."""
    stack = Stack(server_folder / "processes", durable=False, variables={"ENROLLMENT_VISIBILITY_TIMEOUT": "5"})
    (stack.folder / "log").mkdir(parents=True)
    try:
        stack.start_servers()
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("INSERT INTO courses (id) SELECT generate_series(101, 120)")
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def start(stack: Stack, tmp_path: Path) -> Iterator[Start]:
    started: list[Child] = []

    def start(*options: str) -> Child:
        log = tmp_path / f"{len(started)}.log"
        command = [*CELERY, "worker", "--without-mingle", *options]
        child = Child(name="worker", command=command, log=log, env=environment(stack.variables), cwd=ROOT)
        started.append(child)
        child.start()
        return child

    yield start
    workers = [pid for child in started for pid in children(child.pid)]
    for child in started:
        child.kill()
    eventually(lambda: all(map(gone, workers)), PATIENCE)  # the next test's have the same names


def nodes(stack: Stack) -> dict[str, int]:
    """Return the name of each node that answers, and its process."""
    app = Celery("asks", broker=stack.broker_url, set_as_current=False)
    with app.connection_for_write() as connection:
        replies = app.control.inspect(timeout=1, connection=connection).stats() or {}
    return {name.split("@")[0]: reply["pid"] for name, reply in replies.items()}


def until_nodes(stack: Stack, *names: str) -> dict[str, int]:
    return eventually(lambda: found if set(found := nodes(stack)) == set(names) else {}, PATIENCE)


def children(pid: int) -> list[int]:
    return [int(word) for word in run(["ps", "-o", "pid=", "--ppid", str(pid)]).stdout.split()]


def gone(pid: int) -> bool:
    """Tell whether a process has ended, waited for or not."""
    state = run(["ps", "-o", "stat=", "-p", str(pid)]).stdout.strip()
    return not state or state.startswith("Z")


def send_many(outside: Outside, count: int) -> list[str]:
    student = outside.new_student()
    return [outside.send(ENROLL, student, [101 + number % 20], id_=str(uuid4())) for number in range(count)]


def all_done_once(outside: Outside, ids: list[str]) -> None:
    eventually(outside.drained, PATIENCE)
    applied = outside.rows("SELECT command_id::text FROM commands WHERE command_id = ANY(%s::uuid[])", ids)
    assert {row["command_id"] for row in applied} == set(ids)
    told = [event["id"] for event in outside.events() if event["id"] in set(ids)]
    assert sorted(told) == sorted(ids)


def test_three_processes_take_from_one_queue(stack: Stack, start: Start, outside: Outside) -> None:
    start("-c", "3")
    pids = until_nodes(stack, "celery-1", "celery-2", "celery-3").values()
    assert len(set(pids)) == 3
    for pid in pids:
        others = [other for other in pids if other != pid]
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            outside.event(outside.send(ENROLL, outside.new_student(), [101]))
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_all_as_it_stops_one_and_nothing_is_lost(
    stack: Stack, start: Start, outside: Outside, number: signal.Signals
) -> None:
    codes = []
    ids: list[str] = []
    for options, names in (["-c1"], ["celery"]), (["-c2"], ["celery-1", "celery-2"]):
        worker = start(*options)
        pids = until_nodes(stack, *names).values()
        ids += send_many(outside, 300)
        os.killpg(worker.pid, number)  # as a terminal does
        assert worker.wait(PATIENCE)
        assert all(gone(pid) for pid in pids)
        assert b"Traceback" not in worker.log.read_bytes()
        codes.append(worker.returncode)
    assert codes[0] == codes[1]
    assert number != signal.SIGTERM or codes[1] == 0
    start("--concurrency=2")
    all_done_once(outside, ids)


def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(
    stack: Stack, start: Start, outside: Outside
) -> None:
    start("-c2", "-n", "twins@%h")
    before = until_nodes(stack, "twins-1", "twins-2")
    ids = send_many(outside, 200)
    os.kill(before["twins-1"], signal.SIGKILL)
    ids += send_many(outside, 200)
    after = until_nodes(stack, "twins-1", "twins-2")
    assert after["twins-1"] != before["twins-1"]
    assert after["twins-2"] == before["twins-2"]
    all_done_once(outside, ids)


def test_no_process_outlives_the_one_that_started_it(stack: Stack, start: Start) -> None:
    worker = start("-c2")
    pids = until_nodes(stack, "celery-1", "celery-2").values()
    worker.kill()
    eventually(lambda: all(gone(pid) for pid in pids))


def test_sighup_starts_all_anew_under_the_same_id(stack: Stack, start: Start) -> None:
    worker = start("-c2")
    before = set(until_nodes(stack, "celery-1", "celery-2").values())
    worker.send(signal.SIGHUP)
    eventually(lambda: all(gone(pid) for pid in before), PATIENCE)
    assert not before & set(until_nodes(stack, "celery-1", "celery-2").values())
    assert worker.running


def test_a_shutdown_by_remote_control_ends_all(stack: Stack, start: Start) -> None:
    worker = start("-c2")
    until_nodes(stack, "celery-1", "celery-2")
    app = Celery("asks", broker=stack.broker_url, set_as_current=False)
    with app.connection_for_write() as connection:
        app.control.shutdown(connection=connection)
    assert worker.wait(PATIENCE), worker.log.read_text()
    assert worker.returncode == 0


def test_multi_starts_and_stops_them_with_files_of_their_own(stack: Stack, tmp_path: Path) -> None:
    files = [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n%I.log"]
    variables = environment({**stack.variables, "ENROLLMENT_LOG_LEVEL": "ERROR"})
    more = ["-c2", "-l", "INFO", f"--statedb={tmp_path}/%n.state"]

    def multi(verb: str, *options: str) -> None:
        done = run([*CELERY[:3], "multi", verb, "2", "-A", "worker", *files, *options], env=variables, cwd=ROOT)
        assert done.returncode == 0, done.stdout

    multi("start", *more)
    try:
        until_nodes(stack, "celery1-1", "celery1-2", "celery2-1", "celery2-2")
        assert {path.name for path in tmp_path.glob("*.pid")} == {"celery1.pid", "celery2.pid"}
    finally:
        multi("stopwait")
    eventually(lambda: not [*tmp_path.glob("*.pid")])
    for name in ("celery1-1", "celery1-2", "celery2-1", "celery2-2"):
        assert f"{name}@" in (tmp_path / f"{name}.log").read_text(), "-l goes before the variable"
        assert [*tmp_path.glob(f"{name.replace('-', '.state-')}*")]


NOWHERE = {
    "ENROLLMENT_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none",
    "ENROLLMENT_BROKER_URL": "redis://127.0.0.1:1/0",
}


def refused(*options: str, **variables: str) -> str:
    """Return the one line with which the command ends, where there is no server that it could ask."""
    command = [*CELERY, "worker", *options]
    variables = environment(NOWHERE | variables)
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


REFUSED = {
    "-P prefork": "--pool cannot be used with this worker: every process is a worker of its own; leave it out, or",
    "--pool=threads -c 4": "--pool cannot be used",
    "-D --pool processes": "--pool cannot be used",
    "--autoscale=4,1": "say it with -c N",
    "--max-tasks-per-child=9": "limit the memory of the service",
    "--max-memory-per-child=9": "limit the memory of the service",
    "--time-limit=9": "a batch is one transaction",
    "--soft-time-limit=9": "a batch is one transaction",
    "-O fair": "nothing is handed out within a process",
    "--disable-prefetch": "set ENROLLMENT_BATCH_MESSAGES",
    "--pool-start-method=spawn": "processes are forked",
    "-s schedule": "beat keeps its schedule in memory",
    "-c2 -B": "start it by itself with celery -A worker beat",
    "-c2 --purge": "purge first with celery -A worker purge",
    "-c 99999": "-c 99999 is more than 16 processes per core",
    "-Q nothing": "No such queue: nothing; the queues are enrollment, enrollment.bulk.",
}
ASK_ALL = """
import json, os, sys, tempfile
import worker.celery
from celery.__main__ import main

answers = []
for options in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (pid := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["celery", "-A", "worker", "worker", *options.split()]
            sys.exit(main())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        answers.append((code, out.read(), err.read()))
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """Give exit code, output and errors for each set of options; Celery is imported once for all."""
    command, variables = [sys.executable, "-c", ASK_ALL], environment(NOWHERE)
    said = json.dumps(list(REFUSED))
    done = subprocess.run(
        command, input=said, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return dict(zip(REFUSED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_honoured_is_refused_before_anything_connects(options: str, answers: dict[str, Any]) -> None:
    code, output, errors = answers[options]
    assert (code, output) == (1, "")
    [line] = errors.splitlines()
    assert REFUSED[options] in line


def test_what_is_said_by_a_variable_is_refused_as_well() -> None:
    assert "--pool cannot be used" in refused(CELERY_WORKER_POOL="prefork")


def test_a_setting_that_is_missing_is_told_once_for_all_processes() -> None:
    line = refused("-c3", ENROLLMENT_DATABASE_URL="")
    assert line.startswith("ENROLLMENT_DATABASE_URL is not set; set it to")


def test_processes_that_cannot_start_are_not_started_for_ever(start: Start) -> None:
    worker = start("-c3", "--include=no_such_module")
    assert worker.wait(PATIENCE)
    assert worker.returncode == 1
    assert b"process_died" not in worker.log.read_bytes()
