"""Waiting for what another process does, with a patience that a busy machine never uses up."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], patience: float = 20.0) -> T:
    """Wait until what is looked for is there (true), and return it."""
    until = time.monotonic() + patience
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    assert found, f"still {found!r} after {patience} s"
    return found
