"""Charts as the templates draw them: bars of two parts, in hundredths of the height."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor, log10
from typing import NamedTuple


class Bar(NamedTuple):
    """One step: where its lower and its upper part begin, how high each is, and what it says."""

    x: int
    lower: float
    upper: float
    begin: datetime
    values: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars beside each other, each a unit wide; `top` is the value at the upper edge."""

    bars: Sequence[Bar]
    top: float

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not any(bar.lower or bar.upper for bar in self.bars)


def chart(values: Iterable[tuple[datetime, float, float]]) -> Chart:
    """Return the chart of these steps: when each begins, its lower part, and its upper part on top of that."""
    steps = list(values)
    top = round_up(max((lower + upper for _, lower, upper in steps), default=0))
    bars = [
        Bar(x, round(100 * lower / top, 2), round(100 * upper / top, 2), begin, (lower, upper))
        for x, (begin, lower, upper) in enumerate(steps)
    ]
    return Chart(bars, top)


def round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, … (or 0.5, 0.2, …) that is not below; 1 for nothing."""
    if value <= 0:
        return 1
    power = 10.0 ** floor(log10(value))
    return next(round(it * power, 12) for it in (1, 2, 5, 10) if it * power >= value * (1 - 1e-9))
