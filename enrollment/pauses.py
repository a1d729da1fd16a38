"""How long to wait between attempts at something that is away."""

from collections.abc import Iterator


def pauses(first: float, longest: float) -> Iterator[float]:
    """Yield for ever the seconds to wait after each failure in a row: twice as long every time, up to `longest`."""
    while True:
        yield first
        first = min(2 * first, longest)
