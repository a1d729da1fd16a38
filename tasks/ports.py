"""What the tasks need of the process they run in."""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from celery import Celery

from models.dead_letters import NewDeadLetter
from tasks.arrival import Arrival
from tasks.messages import Message


class ServicePort(Protocol):
    """The use cases, bound to the database and the event stream of one process."""

    def handle(
        self, messages: Sequence[Message], keep_alive: Callable[[], None] = ..., arrival: Arrival | None = ...
    ) -> list[str]:
        """Apply and publish one batch; return what came of each message, in a few words.

        Waits as long as the database is away, and calls `keep_alive` about every second meanwhile. Raises Blocked where
        a table is locked by somebody else: try the same again in a second, with the same `arrival`.
        """

    def dead_letter(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = ...) -> None:
        """Keep messages that cannot become commands. Waits like `handle`, and raises Blocked."""

    def release(self) -> float | None:
        """Apply what was put off and waits no longer; return seconds until more may be done, None: nothing waits."""

    def relay(self) -> int:
        """Publish what is committed and not yet sent; return the number of events."""

    def look_again(self) -> None:
        """Take it that the event stream may be there again, for the broker is."""

    def retain(self) -> int:
        """Remove some of what is older than the retention; return the number of rows."""


class Application(Protocol):
    """A Celery app that has the service."""

    service: ServicePort


def service_of(app: Celery) -> ServicePort:
    """Return the service of the app that runs a task."""
    return cast(Application, app).service
