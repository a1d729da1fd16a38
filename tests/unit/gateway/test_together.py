import asyncio
from collections.abc import Sequence

from gateway.together import MOST, Together


async def asked(*, turns: int, at_once: int) -> list[int]:
    """Return how many questions were asked together, each time, where some come in every turn of the loop."""
    sizes: list[int] = []

    async def ask(questions: Sequence[int]) -> Sequence[int]:
        sizes.append(len(questions))
        return [-question for question in questions]

    together: Together[int, int] = Together(ask)
    waiting = []
    for turn in range(turns):
        waiting += [asyncio.create_task(together(turn * at_once + number)) for number in range(at_once)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting)
    assert answers == [-number for number in range(turns * at_once)]
    return sizes


def test_what_comes_with_the_next_turn_is_asked_along() -> None:
    assert asyncio.run(asked(turns=3, at_once=4)) == [12]


def test_a_stream_that_does_not_end_is_not_waited_for() -> None:
    sizes = asyncio.run(asked(turns=50, at_once=10))
    assert len(sizes) > 1
    assert max(sizes) < 2 * MOST
