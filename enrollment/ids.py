"""Ids of commands: UUIDs of version 7 (RFC 9562, section 5.7). They begin with the time, so they sort by it."""

import os
from time import time_ns
from typing import Final
from uuid import UUID

_FIXED: Final = 7 << 76 | 2 << 62  # the version and the variant
_RANDOM: Final = 0xFFF << 64 | (1 << 61) - 1  # all else below the time, but for one bit into which to count
_TAIL: Final = (1 << 32) - 1  # what is random even where the rest is counted

_last = 0  # the newest id that was given out
_drawn: list[int] = []  # random numbers for the next ids: to ask the system for each takes as long as all the rest
os.register_at_fork(after_in_child=_drawn.clear)  # no two processes may have the same


def uuid7() -> UUID:
    """Return a new id, higher than any before it in this process: 48 bits of time in ms, then random ones.

    Where these would make it lower, those before the last 32 are counted on (section 6.2, method 2).
    """
    global _last  # noqa: PLW0603 - what makes the next one higher
    try:
        random = _drawn.pop()
    except IndexError:
        random = _draw()
    new = time_ns() // 1_000_000 << 80 | _FIXED | random & _RANDOM
    if new <= _last:
        new = (_last | _TAIL) + 1 | random & _TAIL
    _last = new
    return UUID(int=new)


def _draw() -> int:
    """Return a random number of 80 bits, and keep more."""
    block = os.urandom(256 * 10)
    first, *more = [int.from_bytes(block[at : at + 10], "big") for at in range(0, len(block), 10)]
    _drawn.extend(more)
    return first
