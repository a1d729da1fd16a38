"""Looking for lists of our queues that nobody reads, in a Redis that may hold millions of other keys."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import structlog
from redis import Redis

from enrollment.names import BULK_QUEUE, QUEUE
from worker.lists import Unread, read_by, unread

QUEUES: Final = (QUEUE, BULK_QUEUE)
PAGE: Final = 1_000  # keys that Redis looks at in one call, in half a millisecond or so
PAGES: Final = 10  # in one step of a worker
PAUSE: Final = 60.0  # seconds between the starts of two passes of a worker
MOST: Final = 100  # lists that are kept of one pass; somebody may make a million

log = structlog.get_logger(__name__)


class Search:
    """One pass over all keys, some pages at a time. `client` returns bytes: a key may be none in UTF-8."""

    def __init__(self, client: Redis, *, separator: str, prefix: str) -> None:
        self._client = client
        self._read = read_by(QUEUES, separator=separator, prefix=prefix)
        self._cursor: int | None = None
        self.found: list[Unread] = []

    @property
    def done(self) -> bool:
        """Whether all keys were looked at."""
        return self._cursor == 0

    def look(self, pages: int) -> None:
        """Look at some more pages. Raises RedisError; the next call goes on."""
        for _ in range(pages):
            reply: Any = self._client.scan(self._cursor or 0, match=f"*{QUEUE}*", count=PAGE, _type="list")
            self._cursor, keys = reply
            if keys and len(self.found) < MOST:
                self._note(keys)
            if self.done:
                return

    def _note(self, keys: Sequence[bytes]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.llen(key)
        lengths = zip(keys, pipe.execute(raise_on_error=False), strict=True)
        # A list that was emptied in the meantime is gone, and one that somebody replaced is no list.
        there = {key.decode(errors="backslashreplace"): n for key, n in lengths if isinstance(n, int) and n}
        known = {each.key for each in self.found}  # a key may come twice
        self.found += [each for each in unread(there, QUEUES, self._read) if each.key not in known]


class Lookout:
    """A worker's searches: a step now and then, and a line in the log for each pass that found something."""

    def __init__(self, begin: Callable[[], Search]) -> None:
        self._begin = begin
        self._search: Search | None = None
        self._next = 0.0

    def step(self) -> None:
        """Look a little further. Raises RedisError."""
        if self._search is None:
            if monotonic() < self._next:
                return
            self._search, self._next = self._begin(), monotonic() + PAUSE
        self._search.look(PAGES)
        if self._search.done:
            found, self._search = self._search.found, None
            if found:
                messages = sum(each.messages for each in found)
                lists = [each.key for each in found[:10]]
                log.warning("lists_not_read", lists=lists, messages=messages, advice=found[0].advice)
