"""Waiting for what another process does, with a patience that a busy machine never uses up."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], patience: float = 20.0) -> T:
    """Wait until what is looked for is there (true), and return it. A look that takes long is not repeated at once."""
    until = (begun := time.monotonic()) + patience
    while not (found := look()) and (now := time.monotonic()) < until:
        time.sleep(min(max(0.02, now - begun), 1.0))
        begun = time.monotonic()
    assert found, f"still {found!r} after {patience} s"
    return found
