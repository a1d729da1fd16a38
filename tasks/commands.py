"""The command tasks. Their names are promises; what they do is `tasks.apply`.

The worker gathers their messages into batches and does not come by here; the bodies are for every
other way to run a task, one message at a time.
"""

from typing import Any

from celery import Task, shared_task
from tenacity import Retrying, retry_if_exception_type, wait_fixed

from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL, WITHDRAW
from tasks.arrival import Arrival
from tasks.caution import RETRY, Blocked
from tasks.messages import Message
from tasks.ports import service_of


class CommandTask(Task):  # type: ignore[type-arg]  # generic in the stubs only
    """A task whose messages are applied in batches. Nothing about its arguments is checked before the use case."""

    abstract = True
    typing = False
    acks_late = True
    ignore_result = True

    def handle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Apply this one message; return what came of it."""
        task_id, arrival = str(self.request.id), Arrival()
        message = Message(self.name, task_id, task_id, args, kwargs, headers={"eta": self.request.eta})
        patient = Retrying(retry=retry_if_exception_type(Blocked), wait=wait_fixed(RETRY))
        return patient(service_of(self.app).handle, [message], arrival=arrival)[0]


@shared_task(name=ENROLL, base=CommandTask, bind=True)
def enroll(self: CommandTask, *args: Any, **kwargs: Any) -> str:
    """Add these courses to the student's."""
    return self.handle(args, kwargs)


@shared_task(name=UNENROLL, base=CommandTask, bind=True)
def unenroll(self: CommandTask, *args: Any, **kwargs: Any) -> str:
    """Take these courses from the student's."""
    return self.handle(args, kwargs)


@shared_task(name=REPLACE, base=CommandTask, bind=True)
def replace(self: CommandTask, *args: Any, **kwargs: Any) -> str:
    """Make the student's courses exactly these."""
    return self.handle(args, kwargs)


@shared_task(name=WITHDRAW, base=CommandTask, bind=True)
def withdraw(self: CommandTask, *args: Any, **kwargs: Any) -> str:
    """End a command that waits."""
    return self.handle(args, kwargs)


@shared_task(name=APPLY, base=CommandTask, bind=True)
def apply(self: CommandTask, *args: Any, **kwargs: Any) -> str:
    """Apply many commands."""
    return self.handle(args, kwargs)
