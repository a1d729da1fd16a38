"""The command line in this process and as a process of its own, with some commands processed where asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from enrollment.names import ENROLL, REPLACE, UNENROLL
from tests.integration.conftest import message
from tests.root import ROOT
from worker.cli.app import app
from worker.service import Service

ID = "11111111-1111-4111-8111-111111111111"


@dataclass(frozen=True)
class Result:
    code: int
    output: str
    error: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.output.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.output.splitlines()]


Run = Callable[..., Result]


@pytest.fixture
def variables(database_url: str, redis_url: str) -> dict[str, str]:
    return {"ENROLLMENT_DATABASE_URL": database_url, "ENROLLMENT_BROKER_URL": redis_url}


@pytest.fixture
def run(variables: dict[str, str]) -> Run:
    """Give a function that runs a verb in this process."""

    def invoke(*arguments: object, stdin: str | None = None, **changed: str) -> Result:
        done = CliRunner().invoke(app, [str(it) for it in arguments], input=stdin, env={**variables, **changed})
        return Result(done.exit_code, done.stdout, done.stderr)

    return invoke


def start(variables: dict[str, str], *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Start the real command."""
    command = [str(Path(sys.executable).with_name("enrollment")), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, env=environment, text=True, cwd=ROOT, **options)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.fixture
def processed(service: Service) -> Service:
    """Have some commands processed: student 1 is in 10 and 12, the third command came late."""
    stamped = {"source": "portal"}
    service.handle(
        [
            message(ENROLL, 1, [10, 11], issued_at="2026-01-31T09:00:00Z", task_id=ID, **stamped),
            message(REPLACE, 1, [10, 12], issued_at="2026-01-31T11:00:00Z"),
            message(UNENROLL, 1, [10], issued_at="2026-01-31T10:00:00Z"),
            message(ENROLL, 1, [99], issued_at="2026-01-31T12:00:00Z"),
        ]
    )
    return service
