"""What routes ask for: made once per process, held by the app."""

from dataclasses import dataclass
from typing import Annotated, Self, cast

from fastapi import Depends, Request
from redis.asyncio import Redis

from gateway.authentication import Authenticator, Caller, Sessions
from gateway.database import CONNECTIONS, Database
from gateway.event_listener import EventListener
from gateway.event_stream import Stream, connect
from gateway.metrics import Metrics
from gateway.producer import CommandProducer
from gateway.rate_limit import Buckets
from gateway.readiness import Readiness
from gateway.redis_store import CommandStore, EndedSessions
from gateway.submission import Submitter
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Gateway:
    """All that one process has."""

    settings: Settings
    redis: Redis
    authenticator: Authenticator
    sessions: Sessions
    ended: EndedSessions
    buckets: Buckets
    read: Database
    probe: Database  # of `readiness` alone
    producer: CommandProducer
    listener: EventListener
    store: CommandStore
    metrics: Metrics
    readiness: Readiness
    submitter: Submitter

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return a gateway for these settings. Nothing is connected yet. Raises SettingsError."""
        redis = connect(settings.require_events_url(), settings.events_credentials())
        read = Database.connect(settings.database_address(), standbys=settings.read_address(), connections=CONNECTIONS)
        probe = Database.connect(settings.database_address(), connections=1)
        producer = CommandProducer(settings.require_broker_url(), settings.transport_options())
        listener = EventListener(Stream(redis, settings.events_stream))
        store, metrics = CommandStore(redis, settings.events_stream), Metrics(listener)
        secret = settings.gateway_secret
        return cls(
            settings=settings,
            redis=redis,
            authenticator=Authenticator(settings.gateway_keys),
            sessions=Sessions(settings.gateway_admins, secret.get_secret_value() if secret else None),
            ended=EndedSessions(redis, settings.events_stream),
            buckets=Buckets(settings.gateway_rate),
            read=read,
            probe=probe,
            producer=producer,
            listener=listener,
            store=store,
            metrics=metrics,
            readiness=Readiness(probe, producer, listener),
            submitter=Submitter(read, producer, listener, store, metrics),
        )

    async def close(self) -> None:
        """Hang up everywhere."""
        await self.listener.stop()
        await self.redis.aclose()
        self.producer.close()
        self.read.close()
        self.probe.close()


# Coroutines: FastAPI calls plain functions in a thread, which takes longer than what they do.
async def gateway_of(request: Request) -> Gateway:
    """Return what the process has."""
    return held_by(request)


async def client_of(request: Request) -> Caller:
    """Return who sent the request; `gateway.middleware.admission` has checked it."""
    return sender_of(request)


def held_by(request: Request) -> Gateway:
    """Return what the process has, to whoever has only the request."""
    return cast(Gateway, request.app.state.gateway)


def sender_of(request: Request) -> Caller:
    """Return who sent the request, to whoever has only that."""
    return cast(Caller, request.state.client)


Held = Annotated[Gateway, Depends(gateway_of)]
Who = Annotated[Caller, Depends(client_of)]
