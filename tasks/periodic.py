"""Tasks that Celery beat sends at intervals."""

from typing import Final

from celery import Task, shared_task

from tasks.ports import service_of

RELAY: Final = "enrollment.relay.v1"
RETENTION: Final = "enrollment.retention.v1"


class PeriodicTask(Task):  # type: ignore[type-arg]  # generic in the stubs only
    """A task of which nothing matters but that it is asked for."""

    abstract = True
    ignore_result = True


@shared_task(name=RELAY, base=PeriodicTask, bind=True)
def relay(self: PeriodicTask) -> int:
    """Publish the events that are committed and not yet on the stream."""
    return service_of(self.app).relay()


@shared_task(name=RETENTION, base=PeriodicTask, bind=True)
def retain(self: PeriodicTask) -> int:
    """Remove some of what is older than the retention."""
    return service_of(self.app).retain()
