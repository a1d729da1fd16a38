"""What a client prefers (RFC 7240): to wait so long for the outcome, or not at all."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_WAIT: Final = 30.0  # seconds; proxies give up on a request at 60
# A token, and perhaps a value, which may be quoted; parameters after a semicolon are left alone.
_PREFERENCE: Final = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("[^"]*"|[^\s;,"]*))?""")


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
    for item in ",".join(headers).split(","):
        found = _PREFERENCE.match(item)
        if found:
            said.setdefault(found[1].lower(), (found[2] or "").strip('"'))
    wait = said.get("wait", "")
    if wait.isascii() and wait.isdecimal() and len(wait) <= 9:  # noqa: PLR2004 - decades, and not thousands of digits
        seconds = min(float(wait), MAX_WAIT)
        return Preference(seconds, f"wait={seconds:.0f}")
    if "respond-async" in said:
        return Preference(0, "respond-async")
    return Preference(default, None)
