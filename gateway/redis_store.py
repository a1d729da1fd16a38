"""What all gateways remember, in Redis: commands between their request and their outcome, and sessions that ended.

The database holds a command when it is processed. Until then a repeat must say the same, the time included, and
whoever was told to come back for the outcome must not be told that there is no such command.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

_CLOCKS: Final = 300  # seconds that the clock of Redis may be ahead
KEPT: Final = 7 * 24 * 60 * 60  # seconds; a command that lies in the queue for longer is forgotten here, not there


class Sent(BaseModel):
    """A command that was sent: when it was asked for, a hash of what it asks, and when it was sent last.

    That is a time of the database, and known of a command that may have been sent before: what became of it earlier
    says nothing.
    """

    model_config = ConfigDict(frozen=True)

    issued_at: datetime
    content: str
    since: datetime | None = None


class CommandStore:
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

    async def renew(self, command_id: UUID, sent: Sent) -> None:
        """Remember this, whatever was remembered. Raises redis.RedisError."""
        await self._client.set(self._key(command_id), sent.model_dump_json(), ex=KEPT)

    async def recall(self, command_id: UUID) -> Sent | None:
        """Return what is remembered. Raises redis.RedisError."""
        kept = await self._client.get(self._key(command_id))
        return None if kept is None else Sent.model_validate_json(kept)

    def _key(self, command_id: UUID) -> str:
        return f"{{{self._stream}}}:gateway:{command_id}"


class EndedSessions:
    """One Redis string per session that was logged out, `{<stream>}:gateway:ended:<id>`, until its cookie ends."""

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def add(self, session_id: str, until: int) -> None:
        """Remember a session whose cookie is good until then, in seconds since 1970. Raises redis.RedisError."""
        await self._client.set(self._key(session_id), "1", exat=until + _CLOCKS)

    async def has(self, session_id: str) -> bool:
        """Tell whether a session was logged out. Raises redis.RedisError."""
        return bool(await self._client.exists(self._key(session_id)))

    def _key(self, session_id: str) -> str:
        return f"{{{self._stream}}}:gateway:ended:{session_id}"
