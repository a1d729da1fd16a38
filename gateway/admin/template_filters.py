"""What templates say things with: times, signs, and the meaning of codes."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup, escape

from enrollment.errors import DeadLetterCode, ErrorCode, Rejection, unknown_courses
from enrollment.taken import taken_because

_SIGNS: Final[Mapping[str, str]] = {
    "applied": "✓",
    "rejected": "✗",
    "waiting": "…",
    "withdrawn": "↩",
    "enrolled": "+",
    "unenrolled": "\N{MINUS SIGN}",
    "unchanged": "=",
    "superseded": "↷",
    "done": "✓",
}
_MEANINGS: Final[Mapping[str, str]] = {
    DeadLetterCode.INVALID_COMMAND: "A field is missing, mistyped, out of range or unknown. Correct it, then replay.",
    DeadLetterCode.COMMAND_ID_REUSED: "Another command had the same id before. A replay sends it with a new one.",
    DeadLetterCode.COMMAND_ID_MISSING: "The message had no usable command id. A replay gives it one.",
    DeadLetterCode.PROCESSING_FAILED: "The worker failed over it. Mend the cause, then replay.",
    DeadLetterCode.NOT_A_MESSAGE: "Something on the queue that is no Celery message.",
    DeadLetterCode.UNDECODABLE_BODY: "The body of the message cannot be read. Correct it, then replay.",
    DeadLetterCode.TOO_LARGE: "It is larger than a worker takes. All of it is in Redis, where the reason says.",
    DeadLetterCode.UNKNOWN_TASK: "The message names a task that does not exist. Say which command it was, then replay.",
    DeadLetterCode.TOO_MANY_DELIVERIES: "It ended its worker again and again. Mend the cause before a replay.",
    DeadLetterCode.REVOKED: "Somebody revoked it before it was processed.",
    DeadLetterCode.EXPIRED: "Its sender gave it a time, which was over before it was processed.",
}
_CODE: Final = re.compile(r"`([^`]*)`")
_NAMED: Final = 30  # ids that a rejection names where it is not all that is shown
LONGEST: Final = 200_000  # characters of a payload that can be corrected on a page
_BEGINNING: Final = 5_000  # characters that are shown of a longer one


def iso(value: datetime) -> str:
    """Return a time for machines."""
    return value.astimezone(UTC).isoformat()


def moment(value: datetime) -> str:
    """Return a time for people; the page's script turns it into their own zone."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def sign(word: str) -> str:
    """Return what stands beside an outcome or effect, for whoever does not see its colour."""
    return _SIGNS.get(word, "•")


def meaning(code: str) -> str:
    """Return what a dead letter's code means, and what to do."""
    return _MEANINGS.get(code, "")


def pretty(payload: str) -> str:
    """Return JSON with a line per value; anything else as it is, and of what is very long the beginning."""
    if is_long(payload):
        return f"{payload[:_BEGINNING]}…"
    try:
        text = json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        text = payload
    return payload if is_long(text) else text


def brief(error: Rejection) -> str:
    """Return what a rejection says, with a long list of ids cut."""
    return unknown_courses(error.ids, most=_NAMED).message if is_cut(error) else error.message


def is_cut(error: Rejection) -> bool:
    """Tell whether a rejection names more ids than are shown beside other things."""
    return error.code == ErrorCode.UNKNOWN_COURSES and len(error.ids) > _NAMED


def is_long(payload: str) -> bool:
    """Tell whether this is more than a page shows in full."""
    return len(payload) > LONGEST


def number(value: float) -> str:
    """Return a number for people: whole from ten on."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"  # noqa: PLR2004 - as it says


def span(seconds: float | None) -> str:
    """Return a length of time for people, in the unit that suits it; a dash for none."""
    if seconds is None:
        return "–"  # noqa: RUF001 - a dash
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size or (unit == "s" and seconds >= size):
            return f"{number(round(seconds / size, 1))} {unit}"
    return f"{1000 * seconds:.0f} ms"


def with_code(words: str) -> Markup:
    """Return a sentence with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(words))))  # noqa: S704 - escaped before


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "iso": iso,
    "moment": moment,
    "sign": sign,
    "meaning": meaning,
    "brief": brief,
    "is_cut": is_cut,
    "is_long": is_long,
    "pretty": pretty,
    "taken_because": taken_because,
    "number": number,
    "span": span,
    "with_code": with_code,
}
