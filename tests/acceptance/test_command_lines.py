"""Programs that are called in a way that cannot work: each says so in one sentence, before it connects to anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.root import ROOT
from worker.local.stack import environment

NOWHERE = {
    "ENROLLMENT_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none",
    "ENROLLMENT_BROKER_URL": "redis://127.0.0.1:1/0",
}


def refused(*command: str, folder: Path = ROOT, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(NOWHERE | variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("-b redis://127.0.0.1:2 worker", "it takes its broker from ENROLLMENT_BROKER_URL"),
        ("--result-backend=rpc:// worker", "--result-backend cannot be used with this worker: there are no results"),
        ("--config=settings beat", "--config cannot be used with this worker"),
        ("worker worker.pool=threads", "'worker.pool=threads' cannot be used here"),
        ("beat -s schedule", "--schedule cannot be used with this worker: beat keeps its schedule in memory"),
    ],
)
def test_options_that_would_be_ignored_or_go_before_the_settings_are_refused(options: str, sentence: str) -> None:
    assert sentence in refused("-m", "celery", "-A", "worker", *options.split())


def test_the_broker_of_another_celery_app_is_not_taken_from_its_variable() -> None:
    line = refused("-m", "celery", "-A", "worker", "inspect", "ping", CELERY_BROKER_URL="redis://127.0.0.1:2")
    assert "CELERY_BROKER_URL cannot be used" in line


def test_migrations_of_another_project_are_not_run_on_the_database_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "__init__.py").touch()
    line = refused("-c", "from worker.cli import main; main()", "migrate", folder=tmp_path)
    assert "hides the module 'migrations'" in line
