"""A process that has imported the libraries, and is forked for each program that tests start (tests/programs.py).

It knows nothing of this project, so programs import it, read their settings and run as Python itself lets them.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    "alembic.command",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.consumer",
    "fastapi",
    "flower.command",
    "jinja2",
    "kombu.transport.redis",
    "opentelemetry.sdk.trace",
    "psycopg",
    "pydantic_settings",
    "rich.console",
    "sqlalchemy.dialects.postgresql.psycopg",
    "structlog",
    "typer",
    "uvicorn",
)
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
FREE = 100  # from here on no descriptor is one that a program was promised


def serve(line: socket.socket) -> list[str]:
    """Fork for each command, and tell how each ended. Returns in every fork: what it shall run."""
    parent = os.getpid()
    while True:
        said, descriptors, _, _ = socket.recv_fds(line, 1 << 20, 16)
        if not said:
            os._exit(0)  # and all that was forked is killed
        question = json.loads(said)
        if "ended" in question:
            _, status = os.waitpid(question["ended"], 0)
            line.send(str(os.waitstatus_to_exitcode(status)).encode())
        elif os.fork() == 0:
            become(question, descriptors, line, parent)
            return list(question["command"])
        for each in descriptors:
            os.close(each)


def become(question: Mapping[str, Any], descriptors: Sequence[int], line: socket.socket, parent: int) -> None:
    """Be a process as `Child` starts it: in a session of its own, killed with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    os.environ.clear()
    os.environ.update(question["env"])
    time.tzset()
    os.chdir(question["cwd"])
    line.send(str(os.getpid()).encode())
    line.close()
    given = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, FREE) for each in descriptors]
    for each, number in zip(given, [0, 1, 2, *question["fds"]], strict=True):
        os.dup2(each, number)
    for each in [*given, *descriptors]:  # who waits for the end of a pipe waits for each
        if each not in question["fds"]:
            os.close(each)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background of a shell


def main() -> None:
    """Import, fork, and run in a fork what it is for, as Python itself does."""
    line = socket.socket(fileno=int(sys.argv[1]))
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    command = sys.orig_argv[:] = serve(line)
    importlib.invalidate_caches()
    kind, rest = "".join(command[1:2]), command[2:]
    if command[0] != sys.executable:
        sys.argv[:], sys.path[0] = command, str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
    elif kind == "-m":
        sys.argv[:], sys.path[0] = rest, os.getcwd()  # noqa: PTH109 - as Python puts it there
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif kind == "-c":
        sys.argv[:], sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))  # noqa: S102
    else:
        sys.argv[:], sys.path[0] = command[1:], str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
