"""What the page does about imports: the use case, in threads of its own, with connections for as long as it takes."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from anyio import to_thread
from sqlalchemy import Connection

from enrollment.client import BrokerAway, Client
from enrollment.errors import EnrollmentError
from gateway.admin.decisions import database
from models import import_rows
from models.imports import ImportRecord
from tasks.imports import report, run
from tasks.imports.formats.rows import FileError
from tasks.imports.plan import ImportRequest
from tasks.imports.start import start
from tasks.imports.undo import CannotUndo, plan_undo
from tasks.imports.why import paragraph
from worker.settings import Settings

__all__ = ["CannotUndo", "FileError", "ImportRequest", "Work", "pieces", "plan_upload", "why"]

_PATIENCE: Final = 30.0  # seconds for a broker that is away
_SETTLE: Final = 600.0  # seconds without any outcome after which nobody waits any more
_PIECE: Final = 1 << 16  # characters of a report in one piece


class Work:
    """The imports that this process applies just now, and why one of them failed."""

    def __init__(self) -> None:
        self.failures: dict[int, str] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def is_at(self, import_id: int) -> bool:
        """Tell whether this process is at it."""
        return import_id in self._tasks

    def begin(self, settings: Settings, import_id: int, by: str, *, again: bool) -> None:
        """Apply a plan, or go on with it, while pages are served; `again`: with what has no outcome, once more."""
        if self.is_at(import_id):
            return
        self.failures.pop(import_id, None)
        task = asyncio.create_task(self._apply(settings, import_id, by, again=again))
        self._tasks[import_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(import_id, None))

    async def _apply(self, settings: Settings, import_id: int, by: str, *, again: bool) -> None:
        try:
            await to_thread.run_sync(partial(_apply, settings, import_id, by, again=again))
        except EnrollmentError as error:
            self.failures[import_id] = str(error)
        except Exception:
            self.failures[import_id] = "It was cut off; what is sent is sent. Go on with it: nothing is done twice."
            raise


async def plan_upload(
    settings: Settings, name: str, file: BinaryIO, request: ImportRequest, format_name: str | None
) -> int:
    """Plan the import of a file that was sent; return the id of the plan. Raises FileError, CatalogError."""
    return await to_thread.run_sync(_plan_upload, settings, name, file, request, format_name)


async def undo(settings: Settings, import_id: int) -> int:
    """Plan the undoing of an import; return the id of the plan. Raises CannotUndo."""
    return await to_thread.run_sync(_undo, settings, import_id)


def pieces(settings: Settings, record: ImportRecord, kind: Literal["csv", "json"]) -> Iterator[str]:
    """Give the report of an import in pieces, as it is read."""
    with database(settings) as engine, engine.connect() as connection:
        gathered: list[str] = []
        size = 0
        for text in report.texts(kind, report.lines(record, import_rows.report(connection, record.id))):
            gathered.append(text)
            size += len(text)
            if size > _PIECE:
                yield "".join(gathered)
                gathered, size = [], 0
        yield "".join(gathered)


def why(connection: Connection, page: Mapping[str, Any]) -> str:
    """Tell in a paragraph why a student is, or is not, enrolled in a course; `page` is its `history_page`."""
    student, course = page["student"], page["course"]
    rows = import_rows.rows_of(connection, student.id, course.id)
    waiting = import_rows.waiting(connection, student.sis_id, course.sis_id) if course.sis_id else ()
    return paragraph(student, course, page["entries"], rows, waiting, is_enrolled=page["is_enrolled"])


def _plan_upload(settings: Settings, name: str, file: BinaryIO, request: ImportRequest, format_name: str | None) -> int:
    with tempfile.TemporaryDirectory(prefix="enrollment-import-") as folder, database(settings) as engine:
        path = Path(folder) / name
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        return start(
            engine, path, request, format_name=format_name, at_once=False, policy=settings.policy(), shown=name
        ).import_id


def _apply(settings: Settings, import_id: int, by: str, *, again: bool) -> None:
    with database(settings) as engine:
        options = settings.transport_options()
        with Client(settings.require_broker_url(), patience=_PATIENCE, transport_options=options) as client:
            run.apply(engine, import_id, client.bulk(), by=by, check=True, again=again)
            others: list[int] = []
            with suppress(BrokerAway):  # the rows of others wait on
                others = run.take_up(engine, client.bulk(), by=by)
        run.settle(engine, import_id, patience=_SETTLE)
        run.settle_others(engine, others, patience=_SETTLE)


def _undo(settings: Settings, import_id: int) -> int:
    with database(settings) as engine:
        return plan_undo(engine, import_id)
