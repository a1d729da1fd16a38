"""What routes ask for: made once per process, held by the app."""

from dataclasses import dataclass
from typing import Annotated, Self, cast

from fastapi import Depends, Request
from redis.asyncio import Redis

from gateway.authentication import Access, Client, Sessions
from gateway.database import CONNECTIONS, Reader
from gateway.event_listener import Listener
from gateway.event_stream import Stream, connect
from gateway.metrics import Metrics
from gateway.producer import Outbound
from gateway.rate_limit import Buckets
from gateway.readiness import Readiness
from gateway.redis_store import Ended, Memory
from gateway.submission import Writer
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Gateway:
    """All that one process has."""

    settings: Settings
    redis: Redis
    access: Access
    sessions: Sessions
    ended: Ended
    buckets: Buckets
    read: Reader
    probe: Reader  # of `readiness` alone
    outbound: Outbound
    listener: Listener
    memory: Memory
    metrics: Metrics
    readiness: Readiness
    writer: Writer

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return a gateway for these settings. Nothing is connected yet. Raises SettingsError."""
        redis = connect(settings.require_events_url())
        read, probe = (Reader.connect(settings.require_database_url(), connections=n) for n in (CONNECTIONS, 1))
        outbound = Outbound(settings.require_broker_url(), settings.transport_options())
        listener = Listener(Stream(redis, settings.events_stream))
        memory, metrics = Memory(redis, settings.events_stream), Metrics(listener)
        secret = settings.gateway_secret
        return cls(
            settings=settings,
            redis=redis,
            access=Access(settings.gateway_keys),
            sessions=Sessions(settings.gateway_admins, secret.get_secret_value() if secret else None),
            ended=Ended(redis, settings.events_stream),
            buckets=Buckets(settings.gateway_rate),
            read=read,
            probe=probe,
            outbound=outbound,
            listener=listener,
            memory=memory,
            metrics=metrics,
            readiness=Readiness(probe, outbound, listener),
            writer=Writer(read, outbound, listener, memory, metrics),
        )

    async def close(self) -> None:
        """Hang up everywhere."""
        await self.listener.stop()
        await self.redis.aclose()
        self.outbound.close()
        self.read.close()
        self.probe.close()


# Coroutines: FastAPI calls plain functions in a thread, which takes longer than what they do.
async def gateway_of(request: Request) -> Gateway:
    """Return what the process has."""
    return held_by(request)


async def client_of(request: Request) -> Client:
    """Return who sent the request; `gateway.middleware.admission` has checked it."""
    return cast(Client, request.state.client)


async def reader_of(request: Request) -> Reader:
    """Return what asks the database."""
    return held_by(request).read


def held_by(request: Request) -> Gateway:
    """Return what the process has, to whoever has only the request."""
    return cast(Gateway, request.app.state.gateway)


Held = Annotated[Gateway, Depends(gateway_of)]
Who = Annotated[Client, Depends(client_of)]
Read = Annotated[Reader, Depends(reader_of)]
