"""The control: a worker as the manuals show it. Stock transport, late acknowledgement, one row per command."""

from typing import Any

import psycopg
from celery import Celery, Task
from kombu import Queue

from tests.acceptance.faults.commands import TASKS
from worker.settings import Settings

settings = Settings.load()
app = Celery("stock", broker=settings.require_broker_url(), set_as_current=False)
app.conf.update(
    task_default_queue="enrollment",
    task_queues=(Queue("enrollment"), Queue("enrollment.bulk")),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_pool="solo",
    worker_prefetch_multiplier=10,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    broker_transport_options={
        "visibility_timeout": settings.visibility_timeout,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
    },
)

URL = settings.require_database_url().replace("+psycopg", "", 1)


class _Connected(Task):  # type: ignore[type-arg]  # generic in the stubs only
    connection: "psycopg.Connection[Any] | None" = None


def note(task: _Connected, /, **_: Any) -> None:
    """Write the command down once, however often it comes."""
    if task.connection is None:
        task.connection = psycopg.connect(URL, autocommit=True)
    task.connection.execute("INSERT INTO stock_commands VALUES (%s) ON CONFLICT DO NOTHING", [task.request.id])


for name in TASKS.values():
    app.task(name=name, base=_Connected, bind=True)(note)
