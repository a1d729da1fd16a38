"""Ids of commands: UUIDs of version 7 (RFC 9562, section 5.7). They begin with the time, so they sort by it."""

import os
from time import time_ns
from uuid import UUID

_last = 0  # the newest time and counter that were given out


def uuid7() -> UUID:
    """Return a new id, higher than any before it in this process: 48 bits of time in ms, 42 of a counter, 32 random."""
    global _last  # noqa: PLW0603 - what makes the next one higher
    random = int.from_bytes(os.urandom(10), "big")
    new = time_ns() // 1_000_000 << 42 | random >> 39  # the counter begins below its half, at random
    _last = new = max(new, _last + 1)
    time, counter = new >> 42, new & (1 << 42) - 1
    value = time << 80 | 7 << 76 | (counter >> 30) << 64 | 2 << 62 | (counter & (1 << 30) - 1) << 32
    return UUID(int=value | random & 0xFFFFFFFF)
