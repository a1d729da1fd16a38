"""Where the servers of the tests keep their data."""

import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is the tests' own, as in /tmp
ROOM = 4 << 30  # bytes; a run needs a quarter of it


def new_folder(prefix: str) -> Path:
    """Make a folder that PostgreSQL can enter when the tests run as root; pytest's own are closed to others.

    It is in memory where there is room, which outlives what tests do to servers: on a disk, making the hundreds of
    files of each test's database takes up to ten times as long.
    """
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else None))
    folder.chmod(0o711)
    return folder
