"""The process: the Celery app, its settings, transport, batching, publishing, logging and command line.

`celery -A worker` looks for `app` here. It is imported at that moment and not before: an error in it is then reported
as what it is, and `enrollment --help` does not pay for Celery.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.celery import app as app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from worker import installation

        installation.check()
        from worker.celery import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
