"""The servers of a fault: a PostgreSQL and a Redis with proxies in front, and what the broker is more than that."""

import re
import shutil
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from redis import Redis as Client

from tests.acceptance.faults.proxy import Proxy
from tests.folders import new_folder
from tests.root import ROOT
from worker.local.postgres import Postgres
from worker.local.redis import Redis

CONNECTIONS: Final = 40  # of PostgreSQL: few, so that they can be exhausted


class Servers:
    """What a harness starts and stops, and how it is reached: with the proxies, and without them."""

    def __init__(self) -> None:
        self.folder = new_folder("enrollment-faults-")
        self.postgres = Postgres(
            self.folder / "postgres", durable=False, settings={"max_connections": str(CONNECTIONS)}
        )
        self.redis = Redis(self.folder / "redis")
        self.proxies: dict[str, Proxy] = {}
        self.database_url = ""  # without a proxy

    def open_proxies(self) -> None:
        """Put them in front of the servers, which run by now."""
        ports = {"database": self.postgres.port, "events": self.redis.port, **self._broker_ports()}
        self.proxies |= {name: Proxy(port) for name, port in ports.items()}

    def _start_redis(self) -> None:
        self.redis.start()

    def _stop_redis(self) -> None:
        self.redis.stop()

    # --- the broker; it is RabbitMQ elsewhere (`rabbitmq`)
    def _start_broker(self) -> None:
        """Start what is more than Redis."""

    def _stop_broker(self) -> None:
        """Stop what is more than Redis."""

    def _broker_ports(self) -> dict[str, int]:
        return {"broker": self.redis.port}

    @property
    def broker_url(self) -> str:
        """Where producers send to, directly."""
        return self.redis.url

    def _broker_through_proxies(self) -> str:
        return self._through(self.redis.url, "broker")

    def _through(self, url: str, proxy: str) -> str:
        head, _, tail = url.rpartition("@")
        return f"{head}@127.0.0.1:{self.proxies[proxy].listens_on}/{tail.partition('/')[2]}"

    def _redis_variables(self) -> dict[str, str]:
        return {
            "ENROLLMENT_BROKER_URL": self._broker_through_proxies(),
            "ENROLLMENT_EVENTS_URL": self._through(self.redis.url, "events"),
        }

    def client(self) -> "Client":
        """Return a client of Redis that goes there directly."""
        return Client.from_url(self.redis.url, decode_responses=True, socket_timeout=10)

    def database(self) -> "psycopg.Connection[dict[str, Any]]":
        """Return a connection to the database that goes there directly."""
        return psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row, application_name="oracle")

    def keep_logs(self, name: str) -> Path:
        """Copy all logs to where they stay, below `.local`; return that folder."""
        kept = ROOT / ".local" / "faults" / re.sub(r"\W+", "-", name)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in [*self.folder.glob("*.log"), *self.folder.glob("*/server.log")]:
            shutil.copy(log, kept / f"{log.parent.name if log.name == 'server.log' else ''}{log.name}")
        return kept
