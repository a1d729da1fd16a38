"""Logging: constant event names with fields, on standard error or in a file; JSON lines unless it is a terminal."""

import logging
import sys
from collections.abc import Callable, Mapping
from logging.handlers import WatchedFileHandler
from typing import Any, Final, Literal

import structlog

RUNBOOK: Final = "docs/operations.md"  # has a section for each warning, headed by the name of its event
_WARNINGS: Final = ("warning", "error", "critical")

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(
    level: str | int,
    style: Literal["auto", "json", "console"],
    *,
    file: str | None = None,
    colors: bool = True,
    warned: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> None:
    """Send the project's and Celery's log alike through structlog to standard error, or to a file, which may rotate.

    `warned` is called with the fields of each warning and error of the project.
    """

    def help_with(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event["level"] in _WARNINGS:
            event["help"] = f"{RUNBOOK}#{event['event']}"
            warned(event)
        return event

    console = style == "console" or (style == "auto" and file is None and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )  # the default shows values
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*_SHARED, help_with, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, _without_arguments],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info if not console else _unchanged,
            renderer,
        ],
    )
    handler = WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(formatter)
    # What no line of ours says, and each would pay for (Logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


def _unchanged(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event


def _without_arguments(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut foreign lines: Celery's critical ones print whole message bodies, student ids included."""
    text = str(event.get("event", ""))
    first = text.strip().splitlines()[0] if text.strip() else text
    limit = 300
    event["event"] = first if len(first) <= limit else first[:limit] + "…"
    return event
