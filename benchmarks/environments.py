"""The environments of the peers: one each, made from its `requirements.txt`, and made anew when that changes."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).parent / "peers"


def prepare(folder: Path, peers: Iterable[str]) -> None:
    """Make the environments that are missing under `folder`, with uv where it is on the PATH. Raises OSError."""
    for peer in sorted(set(peers)):
        requirements = PEERS / peer / "requirements.txt"
        place = environment(folder, peer)
        made = place / "made-from"
        digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
        if not (made.exists() and made.read_text() == digest):
            shutil.rmtree(place, ignore_errors=True)
            _make(place, requirements)
            made.write_text(digest)


def environment(folder: Path, peer: str) -> Path:
    """Return where the environment of a peer is."""
    return folder / "environments" / peer


def _make(place: Path, requirements: Path) -> None:
    uv = shutil.which("uv")
    python = str(place / "bin" / "python")
    if uv:
        steps = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(place)],
            [uv, "pip", "install", "--quiet", "--python", python, "--requirement", str(requirements)],
        ]
    else:
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps = [
            [sys.executable, "-m", "venv", str(place)],
            [python, *pip, "--requirement", str(requirements)],
        ]
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(place, ignore_errors=True)
            raise OSError(f"No environment for {place.name}: {(done.stderr or done.stdout).strip()}")
