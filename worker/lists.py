"""The lists of a queue: kombu has one per priority, and names them by transport options that producers may set."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from re import compile as pattern
from re import escape
from typing import Any, Final

SEPARATOR: Final = "\x06\x16"  # kombu's default
STEPS: Final = range(1, 10)  # kombu cuts priorities off there, whatever `priority_steps` says; 0 is the queue itself


def lists_of(queue: str, separator: str = SEPARATOR) -> list[str]:
    """Return the names of all lists that a message for this queue may lie in, most urgent first.

    Those of kombu's own separator are among them: not every producer may know of another one.
    """
    separators = dict.fromkeys((separator, SEPARATOR))
    return [queue, *(f"{queue}{each}{step}" for step in STEPS for each in separators)]


@dataclass(frozen=True, slots=True)
class Unread:
    """A list by the name of a queue that nobody reads: its producer has other transport options."""

    key: str
    messages: int
    options: Mapping[str, Any]  # the transport options that name it

    @property
    def advice(self) -> str:
        """What makes a worker read it."""
        options = dumps(self.options)
        return f"Give its producer the options of the workers, or start a worker with {VARIABLE}='{options}'"


VARIABLE: Final = "ENROLLMENT_BROKER_OPTIONS"


def unread(lengths: Mapping[str, int], queues: Sequence[str], read: Collection[str]) -> list[Unread]:
    """Return those of these lists (key -> length) that belong to a queue by their names and are not read.

    A key is a prefix that does not end in a letter or digit, the queue, and a separator with a step from 1 to 9; the
    prefix and the latter may be missing.
    """
    names = "|".join(map(escape, sorted(queues, key=len, reverse=True)))
    belongs = pattern(rf"(?s)(?P<prefix>(?:.*[^A-Za-z0-9])?)(?:{names})(?:(?P<sep>[^0-9]{{1,8}})[1-9])?")
    found = [(key, belongs.fullmatch(key)) for key in sorted(lengths) if key not in read]
    return [Unread(key, lengths[key], _options(**match.groupdict())) for key, match in found if match]


def _options(prefix: str, sep: str | None) -> Mapping[str, str]:
    options = {"global_keyprefix": prefix, "sep": sep or SEPARATOR}
    return {name: value for name, value in options.items() if value != {"global_keyprefix": "", "sep": SEPARATOR}[name]}


def read_by(queues: Iterable[str], *, separator: str = SEPARATOR, prefix: str = "") -> set[str]:
    """Return the keys of the lists that a worker with these options reads."""
    return {f"{prefix}{name}" for queue in queues for name in lists_of(queue, separator)}
