"""Waiting for what a fault is to lead to, and ending a process with all that it started."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from worker.local.process import Child


def until(condition: Callable[[], object], timeout: float, *, soft: bool = False, every: float = 0.02) -> bool:
    """Wait for a condition to hold; say whether it does. Raises AssertionError unless `soft`."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            assert soft, "waited in vain"
            return False
        time.sleep(every)
    return True


def kill_group(child: Child) -> None:
    """Kill it and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(None)
