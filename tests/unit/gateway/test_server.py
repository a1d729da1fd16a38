"""How the gateway writes its answers."""

import asyncio
from typing import Any, cast

from gateway.server import GatheringTransport


class Recorder:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        return b"closed" in self.written


def test_what_is_written_in_one_turn_leaves_at_its_end() -> None:
    async def write() -> list[bytes]:
        recorder: Any = Recorder()
        transport = GatheringTransport(cast(asyncio.Transport, recorder), asyncio.get_running_loop())
        for piece in (b"head ", b"body ", b"", b"next head"):
            transport.write(piece)
        assert not recorder.written
        await asyncio.sleep(0)
        transport.write(b"much" * 20_000)
        assert len(recorder.written) == 2
        transport.write(b"last")
        transport.close()
        transport.write(b"too late")
        await asyncio.sleep(0)
        written: list[bytes] = recorder.written
        return written

    assert asyncio.run(write()) == [b"head body next head", b"much" * 20_000, b"last", b"closed"]
