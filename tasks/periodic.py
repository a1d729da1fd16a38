"""Tasks that Celery beat sends at intervals."""

from typing import Final

from celery import Task, shared_task

from tasks.ports import service_of

RELAY: Final = "enrollment.relay.v1"


class RelayTask(Task):  # type: ignore[type-arg]  # generic in the stubs only
    """A task of which nothing matters but that it is asked for."""

    abstract = True
    ignore_result = True


@shared_task(name=RELAY, base=RelayTask, bind=True)
def relay(self: RelayTask) -> int:
    """Publish the events that are committed and not yet on the stream."""
    return service_of(self.app).relay()
