"""`enrollment gateway`: the command itself, with keys, under kills, and to its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.eventually import eventually
from tests.gateway import Backend
from tests.root import ROOT
from worker.local.process import Child
from worker.local.server import free_port
from worker.local.stack import environment

COMMAND = str(Path(sys.executable).with_name("enrollment"))


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment(variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def gateway(backend: Backend, folder: Path, **variables: str) -> Iterator[tuple[Child, httpx.Client]]:
    port = free_port()
    child = Child(
        name="gateway",
        command=[COMMAND, "gateway", "--port", str(port)],
        log=folder / "gateway.log",
        env=environment({**backend.variables(), **variables}),
        cwd=ROOT,
    )
    child.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            eventually(lambda: answers(http), 60)
            yield child, http
    finally:
        child.kill()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_key_that_was_made_is_taken_and_the_log_names_no_student(backend: Backend, tmp_path: Path) -> None:
    made = run("gateway", "key", "portal", "--scope", "write")
    key, setting = made.stdout.split()
    student = backend.new_student()
    with gateway(backend, tmp_path, ENROLLMENT_GATEWAY_KEYS=setting) as (child, http):
        path = f"/students/{student}/courses"
        assert http.post(path, json={"course_id": 101}).status_code == 401
        answer = http.post(path, json={"course_id": 101}, headers={"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["commands"][0]["source"]) == (200, "http/portal")
        assert http.get(path, headers={"X-API-Key": key}).status_code == 403
        log = child.log.read_text()
    assert '"route": "/students/{student_id}/courses"' in log
    assert key not in log
    assert f"/{student}/" not in log


def test_without_keys_it_says_so_and_listens_nowhere_else(backend: Backend, tmp_path: Path) -> None:
    refused = run("gateway", "--host", "0.0.0.0", **backend.variables())  # noqa: S104 - what is refused
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Without keys the gateway listens on this machine alone" in refused.stderr
    with gateway(backend, tmp_path) as (child, _):
        assert '"no_keys"' in child.log.read_text()


def test_told_to_end_it_lets_streams_and_waiters_go_at_once(backend: Backend, tmp_path: Path) -> None:
    student = backend.new_student()
    with gateway(backend, tmp_path) as (child, http), http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        http.post(f"/students/{student}/courses", json={"course_id": 101})
        os.kill(child.pid, signal.SIGTERM)
        began = time.monotonic()
        rest = list(lines)
        assert time.monotonic() - began < 4
        assert any(line.startswith("data: ") for line in rest)
        assert child.wait(20)
        assert child.returncode in (0, -signal.SIGTERM)


def test_a_command_sent_before_the_gateway_was_killed_is_found_through_another(
    backend: Backend, tmp_path: Path
) -> None:
    courses, said = f"/students/{backend.new_student()}/courses", {"course_ids": [101, 102]}
    key = {"Idempotency-Key": "before the kill"}
    backend.worker.kill()
    try:
        with gateway(backend, tmp_path) as (child, http):
            answer = http.post(courses, json=said, headers={**key, "Prefer": "respond-async"})
            child.kill()
    finally:
        backend.start_worker()
    with gateway(backend, tmp_path) as (_, http):
        found = http.get(answer.headers["location"], headers={"Prefer": "wait=20"}).json()
        again = http.post(courses, json=said, headers={**key, "Prefer": "wait=20"}).json()
    assert found["outcome"] == "applied"
    assert again["commands"] == [found]
