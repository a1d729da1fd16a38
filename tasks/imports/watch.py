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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

QUIET: Final = 2.0  # seconds since the last change after which something counts as whole
POLL: Final = 1.0  # seconds between two looks
PARTIAL: Final = (".part", ".tmp", ".filepart", ".crdownload")
_LONGEST: Final = 200  # bytes of a name; that of its report is longer, and 255 are the most
_OURS: Final = ("done", "failed")


def whole(folder: Path, *, now: float) -> list[Path]:
    """Return what is in a folder and complete, the oldest first."""
    found = [(path, _changed(path)) for path in folder.iterdir() if _is_candidate(path)]
    ready = [(changed, path) for path, changed in found if changed is not None and _is_whole(path, changed, now)]
    return [path for _, path in sorted(ready)]


def others(folder: Path, *, now: float) -> set[Path]:
    """Return what is in a folder, at rest, and nothing to import."""
    found = set()
    for path in folder.iterdir():
        with suppress(OSError):  # another watcher has moved it, or it is a link to itself
            if not _is_passing(path) and not _is_candidate(path) and now - path.stat().st_mtime >= QUIET:
                found.add(path)
    return found


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
        ours = False
        with suppress(FileNotFoundError):  # another watcher has moved it
            ours = path.stat().st_ino == os.fstat(handle).st_ino
        yield ours
    finally:
        os.close(handle)


def target(path: Path, import_id: int | None, *, failed: bool) -> Path:
    """Return where to move what was imported. A name that is taken gets the import's id."""
    folder = path.parent / ("failed" if failed else "done")
    folder.mkdir(exist_ok=True)
    wanted = folder / path.name
    number = time.time_ns() if import_id is None else import_id
    return folder / f"{path.stem}.{number}{path.suffix}" if wanted.exists() else wanted


def watch(
    folder: Path,
    handle: Callable[[Path], None],
    *,
    leave: Callable[[Path], None],
    once: bool = False,
    stop: Callable[[float], bool],
) -> None:
    """Call `handle` for all that is put into the folder, until `stop`, which waits, says so; or `once`.

    What is not imported is told to `leave`, once.
    """
    left: set[Path] = set()
    while True:
        before, left = left, others(folder, now=time.time())
        for path in sorted(left - before):
            leave(path)
        for path in whole(folder, now=time.time()):
            with claimed(path) as ours:
                if ours:
                    handle(path)
        if once or stop(POLL):
            return


def _is_passing(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _OURS or path.name.lower().endswith(PARTIAL)


def _is_candidate(path: Path) -> bool:
    if _is_passing(path) or not os.access(path, os.R_OK):
        return False
    if path.is_dir():
        return any(path.glob("*.[cC][sS][vV]"))
    return path.is_file() and path.suffix.lower() in (".csv", ".zip") and len(os.fsencode(path.name)) <= _LONGEST


def _changed(path: Path) -> float | None:
    try:
        inside = [item.stat().st_mtime for item in path.iterdir()] if path.is_dir() else []
        return max([path.stat().st_mtime, *inside])
    except OSError:
        return None


def _is_whole(path: Path, changed: float, now: float) -> bool:
    if path.is_dir() and (path / "manifest.csv").exists():
        return True
    return now - changed >= QUIET
