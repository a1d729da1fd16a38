"""Logging: constant event names with fields, on standard error or in a file; JSON lines unless it is a terminal."""

import logging
import sys
from collections.abc import Callable, Mapping
from logging.handlers import WatchedFileHandler
from typing import Any, Final, Literal, NamedTuple

import structlog

RUNBOOK: Final = "docs/operations.md"  # has a section for each warning, headed by the name of its event
_WARNINGS: Final = ("warning", "error", "critical")

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

_JSON: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


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
    root = logging.getLogger()

    def help_with(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event["level"] in _WARNINGS:
            event["help"] = f"{RUNBOOK}#{event['event']}"
            warned(event)
            if logging.getLevelName(event["level"].upper()) < root.level:
                raise structlog.DropEvent
        return event

    console = style == "console" or (style == "auto" and file is None and sys.stderr.isatty())
    rendering = _console(colors=colors) if console else _JSON
    formatter = _Formatter(
        foreign_pre_chain=[*_SHARED, _without_arguments],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    handler = WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(formatter)
    # What no line of ours says, and each would pay for (Logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root.handlers = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*_SHARED, help_with, lambda _logger, _name, event: ((_Line(event),), {})],
        wrapper_class=structlog.make_filtering_bound_logger(min(root.level, logging.WARNING)),  # all that is counted
        logger_factory=lambda name: _Lines(name, handler),
        cache_logger_on_first_use=True,
    )


class _Line(NamedTuple):
    """What `logging` needs to know of a line of ours, should it fail to write it."""

    msg: structlog.typing.EventDict
    args: tuple[()] = ()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats what others log, and lines of ours."""

    def format(self, record: logging.LogRecord | _Line) -> str:
        if not isinstance(record, _Line):
            return super().format(record)
        line: Any = record.msg
        for render in self.processors[1:]:  # the first is for records
            line = render(None, "", line)
        return str(line)


class _Lines:
    """Hands lines of ours to the handler without the records of `logging`, which take longer than all else."""

    def __init__(self, name: str, handler: Any) -> None:
        self.name = name
        self._handler = handler

    def info(self, line: _Line) -> None:
        with self._handler.lock:
            self._handler.emit(line)

    debug = warning = error = critical = info


def _console(*, colors: bool) -> list[structlog.typing.Processor]:
    """The renderer's own tracebacks show values."""
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _without_arguments(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut foreign lines: Celery's critical ones print whole message bodies, student ids included."""
    text = str(event.get("event", ""))
    first = text.strip().splitlines()[0] if text.strip() else text
    limit = 300
    event["event"] = first if len(first) <= limit else first[:limit] + "…"
    return event
