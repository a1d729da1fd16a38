"""Everything on this machine, kept running: for trying the commands, and for programming a producer or consumer."""

from pathlib import Path
from typing import Final

from rich.console import Console

from models import queries
from worker.local.demo import load_catalog, opened
from worker.local.stack import FOLDER as LOCAL
from worker.local.stack import Stack

FOLDER: Final = LOCAL / "up"


def main(folder: Path | None = None) -> int:
    """Run until Ctrl-C; return 1 if a process ended by itself. Raises LocalError."""
    console = Console(highlight=False)
    with console.status("Starting PostgreSQL, Redis, a worker, beat and Flower"):
        stack = Stack(folder or FOLDER, flower=True).start()
    try:
        _load_once(console, stack)
        _tell(console, stack)
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


def _tell(console: Console, stack: Stack) -> None:
    console.print("\n[bold]Everything runs.[/] In another shell:\n")
    for name, value in stack.variables.items():
        console.print(f"  export {name}={value}", soft_wrap=True, markup=False)
    console.print("\n  enrollment send enroll --student 1 --course 101 --wait")
    console.print("  enrollment courses-of 1")
    console.print("  enrollment events --follow")
    console.print("  enrollment gateway    (HTTP and the admin page)")
    console.print("  enrollment doctor")
    console.print(f"\nFlower: {stack.flower_url}    Logs: {stack.folder / 'log'}", soft_wrap=True)
    console.print("Ctrl-C stops everything; the data is kept.")
