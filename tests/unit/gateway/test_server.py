"""How the gateway writes its answers."""

import asyncio
from typing import Any, cast

from gateway.server import PairingTransport


class Recorder:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        return b"closed" in self.written


def test_the_head_of_an_answer_leaves_with_what_comes_after_it() -> None:
    async def write() -> list[bytes]:
        recorder: Any = Recorder()
        transport = PairingTransport(cast(asyncio.Transport, recorder), asyncio.get_running_loop())
        for piece in (b"head ", b"body", b""):
            transport.write(piece)
        transport.write(b"head of a stream")
        await asyncio.sleep(0)
        transport.write(b"last")
        transport.close()
        transport.write(b"too late")
        await asyncio.sleep(0)
        written: list[bytes] = recorder.written
        return written

    assert asyncio.run(write()) == [b"head body", b"head of a stream", b"last", b"closed"]
