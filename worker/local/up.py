"""Everything on this machine, kept running: for trying the commands, and for programming a producer or consumer."""

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.console import Console

from models import queries
from worker.credentials import Admin
from worker.local.demo import load_catalog, opened
from worker.local.stack import FOLDER as LOCAL
from worker.local.stack import Stack

FOLDER: Final = LOCAL / "up"
ADMIN: Final = "admin"  # who may log in to the page, with a new password at each start
MEASURED: Final = {"ENROLLMENT_METRICS_PORT": "0"}  # any port: `enrollment exporter` tells Prometheus which


def main(folder: Path | None = None) -> int:
    """Run until Ctrl-C; return 1 if a process ended by itself. Raises LocalError."""
    console = Console(highlight=False)
    password = secrets.token_urlsafe(9)
    admin = {"ENROLLMENT_GATEWAY_ADMINS": Admin.create(ADMIN, password).setting()}
    gateway = admin if find_spec("fastapi") else None  # it comes with the extra `gateway`
    with console.status("Starting PostgreSQL, Redis, a worker, beat, the gateway and Flower"):
        stack = Stack(folder or FOLDER, flower=True, gateway=gateway, variables=MEASURED).start()
    try:
        _load_once(console, stack)
        _tell(console, stack, password)
        ended = stack.wait()
    except KeyboardInterrupt:  # pressed before `wait` watched for it
        ended = None
    finally:
        with console.status("Stopping"):
            stack.stop()
    if ended is not None:
        console.print(f"{ended} ended by itself; its log is under {stack.folder}.", soft_wrap=True)
        return 1
    console.print("Stopped. The data is kept, and is there again the next time.")
    return 0


def _load_once(console: Console, stack: Stack) -> None:
    """Load the demo's catalog, unless there is something already."""
    with opened(stack) as (connection, _):
        if queries.students(connection, limit=1).items or queries.courses(connection, limit=1).items:
            return
        students, courses = load_catalog(connection)
        connection.commit()
    console.print(f"Loaded {students} students (1 to {students}) and {courses} courses (from 101).")


def _tell(console: Console, stack: Stack, password: str) -> None:
    console.print("\n[bold]Everything runs.[/] In another shell:\n")
    for name, value in stack.variables.items():
        console.print(f"  export {name}={value}", soft_wrap=True, markup=False)
    console.print("\n  enrollment send enroll --student 1 --course 101 --wait")
    console.print("  enrollment courses-of 1")
    console.print("  enrollment events --follow")
    console.print("  enrollment doctor")
    if stack.gateway_url is None:
        console.print("\nFor the page and HTTP: pip install 'enrollment-worker[gateway]'", markup=False)
    else:
        login = f"Log in as: {ADMIN}    Password: {password}"
        console.print(f"\nPage: {stack.gateway_url}/admin    {login}", soft_wrap=True)
        console.print(f"HTTP: {stack.gateway_url}    What it offers: {stack.gateway_url}/docs", soft_wrap=True)
    console.print(f"\nFlower: {stack.flower_url}    Logs: {stack.folder / 'log'}", soft_wrap=True)
    console.print("Ctrl-C stops everything; the data is kept.")
