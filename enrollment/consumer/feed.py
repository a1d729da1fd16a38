"""The change feed of the gateway: what a reader goes on with when the stream no longer has what it needs."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from redis.exceptions import ConnectionError as Disconnected

from enrollment.errors import EnrollmentError

_ANSWER: Final = 15.0  # seconds
_MOST: Final = 1000  # events that the gateway gives at once


class FeedAway(Disconnected):
    """The gateway does not answer, or not with a page. As of Redis: try again."""


class FeedGone(EnrollmentError):
    """The feed does not reach back so far."""


@dataclass(frozen=True, slots=True)
class Page:
    """Events as they stand on the stream, and where to go on. `more`: there are some already."""

    texts: tuple[str, ...]
    cursor: str
    more: bool


class Feed:
    """The feed behind a gateway's address, with an API key where it asks for one."""

    def __init__(self, gateway_url: str, *, key: str | None = None) -> None:
        """Raises ValueError for an address that is not HTTP."""
        if urlsplit(gateway_url).scheme not in ("http", "https"):
            raise ValueError("the gateway's address must begin with http:// or https://")
        self._url = gateway_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def read(self, place: str, count: int) -> Page:
        """Return the page at a place: a cursor, `since=` and a time, or nothing for the beginning. Raises as `page`."""
        name, _, value = place.rpartition("=")
        return self.page(count=count, **({name or "after": value} if value else {}))

    def page(self, *, count: int, **place: str) -> Page:
        """Return the next page; `place` is `after`, `since` or `ahead` as of GET /changes.

        Raises FeedAway, and FeedGone where events may be missing.
        """
        query = urlencode({**place, "limit": min(count, _MOST)})
        request = Request(f"{self._url}/changes?{query}", headers=self._headers)  # noqa: S310 - HTTP, checked above
        try:
            with urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310
                text: str = answer.read().decode()
        except HTTPError as error:
            if error.code == HTTPStatus.GONE:
                raise FeedGone("The change feed does not reach back to where this reader was.") from error
            raise FeedAway(f"the gateway answered GET /changes with {error.code}") from error
        except (URLError, OSError) as error:
            raise FeedAway(f"the gateway cannot be reached: {error}") from error
        about: dict[str, Any] = json.loads(text)
        lines = text.split("\n")[1:-2]  # each event has a line, so that it keeps its bytes
        return Page(tuple(line.removesuffix(",") for line in lines if line), about["cursor"], about["more"])
