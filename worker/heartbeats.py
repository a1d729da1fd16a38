"""Which workers are alive, of which version, and where they serve metrics: from the heartbeats that Celery sends."""

import re
from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

import structlog
from celery import Celery
from kombu import Connection

from enrollment.addresses import kombu_url
from worker.consume.monitoring import ADDRESS, REVISION
from worker.transport import register

ALIVE: Final = 10.0  # seconds since the last heartbeat; there is one every two, also while a batch waits
_SILENCE: Final = 10.0  # seconds without a heartbeat after which the connection is made anew: it may be dead
_PAUSE: Final = 1.0  # seconds until the broker is tried again
# A heartbeat can be sent by whoever may publish to the broker. No path, no credentials, nothing but a host and a port.
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}")
_MOST: Final = 1_000  # workers that are remembered

log = structlog.get_logger(__name__)


def asking(name: str, broker_url: str) -> Celery:
    """Return an app that asks workers on the connections it is given: it keeps none open in kombu's global pools."""
    app = Celery(name, broker=kombu_url(broker_url), set_as_current=False)
    control: Any = app.control
    control.mailbox._producer_pool = None  # noqa: SLF001
    return app


def revisions(app: Celery, connection: Connection, seconds: float) -> Mapping[str, str | None]:
    """Return the newest revision of the schema that each worker knows; None: its version is too old to say.

    All are asked for a heartbeat, and listened to for about so many seconds: one that waits for a server gives its own.
    """
    until = monotonic() + seconds
    found: dict[str, str | None] = {}

    def heard(event: Mapping[str, Any]) -> None:
        said = event.get(REVISION)
        found[str(event.get("hostname"))] = said if isinstance(said, str) else None

    receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": heard}, routing_key="worker.#")
    with suppress(TimeoutError):
        for _ in receiver.itercapture(timeout=seconds):
            if monotonic() >= until:
                break
    return found


class Heartbeats:
    """Listens in a thread of its own, for as long as the process lives."""

    def __init__(self, broker_url: str, options: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Listen at the broker; `options` are those that name the keys of its workers, and its credentials."""
        register()  # the transport that knows `credential_provider`
        self._app = asking("exporter", broker_url)
        self._app.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 5, **options}
        self._seen: dict[str, tuple[float, str | None]] = {}
        self._receiver: Any = None
        self._ended = Event()

    def start(self) -> None:
        """Begin to listen."""
        Thread(target=self._listen, name="heartbeats", daemon=True).start()

    def close(self) -> None:
        """Listen no longer; within seconds the connection is closed."""
        self._ended.set()
        if receiver := self._receiver:
            receiver.should_stop = True

    def alive(self) -> Mapping[str, str | None]:
        """Return the workers that gave a sign in the last seconds, each with the address of its metrics, if any."""
        since = monotonic() - ALIVE
        return {node: address for node, (at, address) in list(self._seen.items()) if at >= since}

    def silent(self) -> int:
        """Return how many gave none in the last seconds, some in the last minutes, and did not say that they end."""
        since, until = monotonic() - 60 * ALIVE, monotonic() - ALIVE
        return sum(since <= at < until for at, _ in list(self._seen.values()))

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take a heartbeat."""
        node, address = event.get("hostname"), event.get(ADDRESS)
        if not isinstance(node, str) or (len(self._seen) >= _MOST and node not in self._seen):
            return
        sound = isinstance(address, str) and _HOST_AND_PORT.fullmatch(address) is not None
        self._seen[node] = (monotonic(), address if sound else None)
        for old in [it for it, (at, _) in self._seen.items() if at < monotonic() - 60 * ALIVE]:
            del self._seen[old]

    def gone(self, event: Mapping[str, Any]) -> None:
        """Take the last word of a worker that ends in order."""
        self._seen.pop(str(event.get("hostname")), None)

    def _listen(self) -> None:
        handlers = {"worker-heartbeat": self.heard, "worker-online": self.heard, "worker-offline": self.gone}
        interrupted = False
        while not self._ended.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    connection.ensure_connection(max_retries=len(connection.alt))  # or two nodes are tried only
                    interrupted = False
                    self._receiver = self._app.events.Receiver(connection, handlers=handlers, routing_key="worker.#")
                    self._receiver.should_stop = self._ended.is_set()
                    self._receiver.capture(timeout=_SILENCE)  # asks all workers for a heartbeat when it begins
            except TimeoutError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
                if not interrupted:  # once for an outage, not every second
                    log.info("heartbeats_interrupted", error=str(error).partition("\n")[0])
                interrupted = True
            self._ended.wait(_PAUSE)
