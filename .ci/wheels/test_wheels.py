"""What a stranger does with the wheels: an empty folder, a fresh environment, and the README."""

import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import DIST, FROM_WHEELS, Installed, contents, end, until

Install = Callable[[str], Installed]

CLIENT = """
from enrollment.client import Client
from enrollment.consumer import Reader
import os, sys
url = os.environ["ENROLLMENT_BROKER_URL"]
with Client(url) as client:
    command_id = client.enroll(2, [101], source="wheel")
    with client.bulk() as bulk:
        bulk.replace(3, [101])
    event = client.wait_for(command_id)
assert event.type == "enrollment.applied.v1", event
with Reader(url) as reader:
    assert any(entry.event.id == command_id for entry in reader.read())
assert not {"celery", "sqlalchemy", "worker"} & sys.modules.keys()
print(event.data.command_id)
"""


def main_job(worker: Installed, database: dict[str, str], tmp_path: Path) -> None:
    for name in ("celeryconfig", "enrollment", "migrations", "models", "tasks"):  # of another project, beside ours
        (worker.folder / f"{name}.py").write_text("raise RuntimeError(__file__)\n")
    (worker.folder / "students.csv").write_text("id,name\n42,Ana\n")
    (worker.folder / "courses.csv").write_text("id,title\n101,Algebra\n")

    def enrollment(*arguments: str, code: int = 0) -> str:
        return worker.run("enrollment", *arguments, variables=database, code=code)

    assert re.fullmatch(r"enrollment-worker \d+\.\d+\.\d+\n", enrollment("--version"))
    assert "BEGIN;" in enrollment("migrate", "--sql")
    enrollment("migrate", "status", code=1)
    enrollment("migrate")
    enrollment("migrate", "status")
    enrollment("catalog", "load", "--students", "students.csv", "--courses", "courses.csv")
    log = tmp_path / "worker.log"
    process = worker.start(log, "celery", "-A", "worker", "worker", variables=database)
    beat = worker.start(tmp_path / "beat.log", "celery", "-A", "worker", "beat", "--pidfile=", variables=database)
    try:
        until(log, "ready")
        assert "applied" in enrollment("send", "enroll", "--student", "42", "--course", "101", "--wait")
        assert "Algebra" in enrollment("courses-of", "42")
        assert "enrollment.applied.v1" in enrollment("events", "--json")
        enrollment("doctor")
        assert beat.poll() is None
    finally:
        worker.end(beat)
        assert worker.end(process) == 0


def test_each_wheel_ships_its_packages_and_nothing_else() -> None:
    def top(name: str) -> set[str]:
        return {path.partition("/")[0] for path in contents(name) if ".dist-info/" not in path}

    assert top("enrollment_client") == {"enrollment"}
    assert top("enrollment_worker") == {"celeryconfig.py", "gateway", "migrations", "models", "tasks", "worker"}
    assert "enrollment/py.typed" in contents("enrollment_client")
    assert any(path.startswith("migrations/versions/0001") for path in contents("enrollment_worker"))
    assert any(path.endswith(".lua") for path in contents("enrollment_worker"))
    for name in ("enrollment_client", "enrollment_worker"):
        assert any(path.endswith("licenses/LICENSE") for path in contents(name))
        assert not [path for path in contents(name) if "test" in path.lower()]


def test_the_metadata_is_what_an_index_takes() -> None:
    files = [str(path) for path in DIST.iterdir()]
    subprocess.run(["uvx", "--quiet", "twine", "check", "--strict", *files], check=True)


def test_the_client_sends_waits_and_follows_without_celery_and_sqlalchemy(
    install: Install, servers: dict[str, str]
) -> None:
    client = install("enrollment-client")
    client.run("python", "-W", "error", "-c", CLIENT, variables=servers)
    for name in ("celery", "sqlalchemy", "worker", "models", "tasks", "alembic", "psycopg"):
        client.run("python", "-c", f"import {name}", code=1)


@pytest.mark.parametrize("extra", ["", "[gateway]", "[flower]", "[local]", "[gateway,flower,local]"])
def test_the_main_job_runs_with_each_extra(
    install: Install, database: dict[str, str], extra: str, tmp_path: Path
) -> None:
    main_job(install(f"enrollment-worker{extra}"), database, tmp_path)


def test_flower_shows_its_page(install: Install, database: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    flower = install("enrollment-worker[flower]")
    process = flower.start(log, "celery", "-A", "worker", "flower", "--port=24871", variables=database)
    try:
        until(log, "Visit me")
        with urllib.request.urlopen("http://127.0.0.1:24871/workers", timeout=10) as answer:
            assert b"Flower" in answer.read()
    finally:
        process.kill()
        process.wait()


def test_the_gateway_answers(install: Install, servers: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    process = install("enrollment-worker[gateway]").start(log, "enrollment", "gateway", "--port=0", variables=servers)
    try:
        address = until(log, r"http://127\.0\.0\.1:\d+").group()
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            assert answer.status == 200
    finally:
        end(process)


@pytest.mark.parametrize(
    ("command", "missing"), [(["enrollment", "gateway"], "gateway"), (["enrollment", "up"], "local")]
)
def test_a_verb_without_its_extra_says_what_to_install(install: Install, command: list[str], missing: str) -> None:
    output = install("enrollment-worker").run(*command, code=1)
    assert f"enrollment-worker[{missing}]" in output
    assert len(output.splitlines()) == 1


def test_the_demo_runs_straight_from_the_wheels(newest: str, tmp_path: Path) -> None:
    call = ["uvx", "--quiet", "--python", newest, *FROM_WHEELS, "--from", "enrollment-worker[local]"]
    done = subprocess.run([*call, "enrollment", "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"applied", done.stdout)


@pytest.mark.parametrize("python", ["newest"], indirect=True)
def test_the_newest_python_does_all_of_it(
    install: Install, servers: dict[str, str], database: dict[str, str], tmp_path: Path
) -> None:
    install("enrollment-client").run("python", "-c", CLIENT, variables=servers)
    main_job(install("enrollment-worker[gateway,flower,local]"), database, tmp_path)
