"""A watched folder: what is put there is imported, then moved to `done` or `failed` with its report beside.

A file that is being written has another name until it is whole: one that begins with a dot, or ends with `.part`,
`.tmp` or `.filepart`. A folder is whole when its `manifest.csv` is there, or nothing in it has changed for a while.

The lock is on the file itself, and ends with the process that holds it. So two watchers never have the same file, and
what a killed one left is taken up by the next.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

QUIET: Final = 2.0  # seconds since the last change after which something counts as whole
POLL: Final = 1.0  # seconds between two looks
PARTIAL: Final = (".part", ".tmp", ".filepart", ".crdownload")
_OURS: Final = ("done", "failed")


def whole(folder: Path, *, now: float) -> list[Path]:
    """Return what is in a folder and complete, the oldest first."""
    found = [(path, _changed(path)) for path in folder.iterdir() if _is_candidate(path)]
    ready = [(changed, path) for path, changed in found if changed is not None and _is_whole(path, changed, now)]
    return [path for _, path in sorted(ready)]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Tell whether the path is ours to import; nobody else's watcher has it until the end of the block."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield path.exists() and path.stat().st_ino == os.fstat(handle).st_ino  # else another watcher has moved it
    finally:
        os.close(handle)


def target(path: Path, import_id: int | None, *, failed: bool) -> Path:
    """Return where to move what was imported. A name that is taken gets the import's id."""
    folder = path.parent / ("failed" if failed else "done")
    folder.mkdir(exist_ok=True)
    wanted = folder / path.name
    number = time.time_ns() if import_id is None else import_id
    return folder / f"{path.stem}.{number}{path.suffix}" if wanted.exists() else wanted


def watch(folder: Path, handle: Callable[[Path], None], *, once: bool = False, stop: Callable[[float], bool]) -> None:
    """Call `handle` for all that is put into the folder, until `stop`, which waits, says so; or `once`."""
    while True:
        for path in whole(folder, now=time.time()):
            with claimed(path) as ours:
                if ours:
                    handle(path)
        if once or stop(POLL):
            return


def _is_candidate(path: Path) -> bool:
    if path.name.startswith(".") or path.name in _OURS or path.name.lower().endswith(PARTIAL):
        return False
    return path.is_dir() or path.suffix.lower() in (".csv", ".zip")


def _changed(path: Path) -> float | None:
    try:
        inside = [item.stat().st_mtime for item in path.iterdir()] if path.is_dir() else []
        return max([path.stat().st_mtime, *inside])
    except FileNotFoundError:
        return None


def _is_whole(path: Path, changed: float, now: float) -> bool:
    if path.is_dir() and (path / "manifest.csv").exists():
        return True
    return now - changed >= QUIET and (not path.is_dir() or any(path.glob("*.csv")))
