"""An environment that was made from the wheels, and what a stranger does in it."""

import os
import re
import signal
import subprocess
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
# All builds have one version: from its cache, uv would take what an earlier one made.
FROM_WHEELS = ["--find-links", str(DIST), "--refresh-package=enrollment-client", "--refresh-package=enrollment-worker"]
OLDEST, NEWEST = "3.11", ("3.14", "3.13", "3.12")
WAIT = 60  # seconds for a process to say what is waited for

for variable in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(variable, None)


def wheel(name: str) -> Path:
    [found] = DIST.glob(f"{name}-*.whl")
    return found


def contents(name: str) -> list[str]:
    with zipfile.ZipFile(wheel(name)) as archive:
        return archive.namelist()


@dataclass(frozen=True)
class Installed:
    """An environment, and an empty folder to work in."""

    environment: Path
    folder: Path

    def call(self, command: tuple[str, ...], variables: dict[str, str]) -> list[str]:  # noqa: ARG002 - a container has them
        """Return the command as it has to be called here."""
        return [str(self.environment / "bin" / command[0]), *command[1:]]

    def run(self, *command: str, variables: dict[str, str] | None = None, code: int = 0) -> str:
        """Run a command of this environment in the empty folder; return all that it printed."""
        done = subprocess.run(
            self.call(command, variables or {}),
            cwd=self.folder,
            env={**os.environ, **(variables or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def start(self, log: Path, *command: str, variables: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                self.call(command, variables or {}),
                cwd=self.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Ask a process to end; return its exit code."""
        return end(process)


def until(log: Path, pattern: str) -> re.Match[str]:
    """Wait until a log says this."""
    deadline = time.monotonic() + WAIT
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < deadline, f"{pattern!r} is not in:\n{log.read_text()}"
        time.sleep(0.1)
    return found


def end(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(30)
