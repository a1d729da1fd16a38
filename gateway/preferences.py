"""What a client prefers (RFC 7240): to wait so long for the outcome, or not at all."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MAX_WAIT: Final = 30.0  # seconds; proxies give up on a request at 60
_LONGEST: Final = 1000  # characters of a header that are looked at; the time it takes grows with their square
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token: RFC 9110, section 5.6.2
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'  # RFC 9110, section 5.6.4; may hold commas and semicolons
_PREFERENCE: Final = re.compile(rf"\s*({_WORD})\s*(?:=\s*({_QUOTED}|{_WORD})?\s*)?(?:;|$)")
_ITEM: Final = re.compile(rf'(?:{_QUOTED}|[^",]|")+')  # between commas; a quote that is never closed is a character


class Preference(NamedTuple):
    """How long to wait, in seconds, and what the client is told was done of what it prefers."""

    wait: float
    applied: str | None

    @property
    def headers(self) -> dict[str, str]:
        """The header `Preference-Applied`, where there is something to say."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def preference_of(headers: Sequence[str], default: float) -> Preference:
    """Read the `Prefer` headers of a request. What is not understood is ignored, and of a repetition the first counts.

    `respond-async` alone means not to wait; with `wait=N` it means what `wait=N` does (RFC 7240, section 4.1).
    """
    said: dict[str, str] = {}
    for name, value in _preferences(headers):
        said.setdefault(name, value)
    wait = said.get("wait", "")
    if wait.isascii() and wait.isdecimal() and len(wait) <= 9:  # noqa: PLR2004 - decades, and not thousands of digits
        seconds = min(float(wait), MAX_WAIT)
        return Preference(seconds, f"wait={seconds:.0f}")
    if "respond-async" in said:
        return Preference(0, "respond-async")
    return Preference(default, None)


def _preferences(headers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give each preference, without its parameters: the name, in small letters, and the value, without its quotes."""
    for header in headers:
        for item in _ITEM.findall(header[:_LONGEST]):
            found = _PREFERENCE.match(item)
            if found:
                value = found[2] or ""
                yield found[1].lower(), re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
