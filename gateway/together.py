"""What is asked at one moment, asked in one go: requests that came together share what one of them would cost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST: Final = 100  # questions, after which no more are waited for: some might come with every turn


class Together(Generic[Q, A]):
    """Gathers questions until a turn of the event loop brings no more. The busier the process, the more there are.

    `ask` gets them, and returns an answer to each, in the same order. What it raises is raised to all who asked.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._ask = ask
        self._gathered: list[tuple[Q, asyncio.Future[A]]] = []
        self._seen = 0  # of them, a turn ago
        self._under_way: set[asyncio.Task[None]] = set()  # the event loop alone would let them go

    async def __call__(self, question: Q) -> A:
        """Return the answer."""
        loop = asyncio.get_running_loop()
        if not self._gathered:
            loop.call_soon(self._leave)
        answer: asyncio.Future[A] = loop.create_future()
        self._gathered.append((question, answer))
        return await answer

    def _leave(self) -> None:
        if self._seen < len(self._gathered) < MOST:  # more may come with the next turn
            self._seen = len(self._gathered)
            asyncio.get_running_loop().call_soon(self._leave)
            return
        self._seen = 0
        task = asyncio.create_task(self._answer(self._gathered))
        self._gathered = []
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _answer(self, gathered: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        waiting = [answer for _, answer in gathered]
        try:
            for future, found in zip(waiting, await self._ask([question for question, _ in gathered]), strict=True):
                if not future.done():  # its request may be over
                    future.set_result(found)
        except Exception as error:  # noqa: BLE001 - they raise it
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
        finally:
            for future in waiting:  # cancelled, as at the end of the process, this would leave them waiting
                future.cancel()
