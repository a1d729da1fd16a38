"""What is remembered of a command between its request and its outcome, for all gateways: in Redis.

The database holds a command when it is processed. Until then a repeat must say the same, the time included, and
whoever was told to come back for the outcome must not be told that there is no such command.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

KEPT: Final = 7 * 24 * 60 * 60  # seconds; a command that lies in the queue for longer is forgotten here, not there


class Sent(BaseModel):
    """A command that was sent: when it was asked for, and a hash of what it asks."""

    model_config = ConfigDict(frozen=True)

    issued_at: datetime
    content: str


class Memory:
    """One Redis string per command, `{<stream>}:gateway:<command_id>`, JSON, which expires."""

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def remember(self, command_id: UUID, sent: Sent) -> Sent:
        """Remember this, unless something is remembered; return what is. Raises redis.RedisError."""
        key = self._key(command_id)
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(key, sent.model_dump_json(), nx=True, ex=KEPT)
            pipeline.get(key)
            _, kept = await pipeline.execute()
        return Sent.model_validate_json(kept)

    async def recall(self, command_id: UUID) -> Sent | None:
        """Return what is remembered. Raises redis.RedisError."""
        kept = await self._client.get(self._key(command_id))
        return None if kept is None else Sent.model_validate_json(kept)

    def _key(self, command_id: UUID) -> str:
        return f"{{{self._stream}}}:gateway:{command_id}"
