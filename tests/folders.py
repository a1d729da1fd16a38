"""Where the servers of the tests keep their data."""

import os
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is the tests' own, as in /tmp
ROOM = 4 << 30  # bytes; a run needs a quarter of it


def new_folder(prefix: str) -> Path:
    """Make a folder that PostgreSQL can enter when the tests run as root; pytest's own are closed to others.

    It is in memory where there is room, which outlives what tests do to servers: on a disk, making the hundreds of
    files of each test's database takes up to ten times as long.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if MEMORY.is_dir() and _is_fit(MEMORY) else None))
    folder.chmod(0o711)
    return folder


def _is_fit(place: Path) -> bool:
    """Tell whether there is room, and programs may be there: PostgreSQL's are copied where it cannot enter ours."""
    it = os.statvfs(place)
    return it.f_bavail * it.f_frsize >= ROOM and not it.f_flag & os.ST_NOEXEC
