"""The plan of an import: what each row would do, over the state as it is now. Nothing is sent."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import UUID, uuid5

from sqlalchemy import Connection, Engine

from enrollment.commands import format_time
from enrollment.fold import MAX_AHEAD
from models import catalog, import_entries, import_snapshots, imports, planning
from models.catalog import NewCourse, NewStudent
from models.imports import ImportRecord
from tasks.imports.files import Parts
from tasks.imports.formats.rows import CatalogRow, EnrollmentRow, FileError, Reading, Sheet, rejected
from tasks.imports.guard import Limits, objection

_NAMESPACE: Final = UUID("6d1f0d0e-6f5f-5d0b-9c52-2b8f4d0f3a10")  # of the ids of all commands of all imports
_LONGEST: Final = 255  # characters of an id, as OneRoster has it; PostgreSQL cannot index 2,700
_LONGEST_NAME: Final = 1000  # characters of a name, code or title; what is longer has lost its closing quote
_KEPT: Final = 7  # days that a plan waits to be applied

Tell = Callable[[int, int], None]  # how much is done, of how much


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """How an import is wanted."""

    source: str
    issued_at: datetime | None = None  # of rows that have no time of their own; None: when the plan is made
    full: bool | None = None  # None: as the manifest says
    scope: Literal["courses", "source"] = "courses"
    limits: Limits = field(default_factory=Limits)
    statuses: dict[str, str] = field(default_factory=dict)
    course_is: Literal["class", "course"] = "class"
    by: Literal["id", "sis_id"] = "id"  # of the plain format; the others know students by the SIS's id
    wait_for_catalog: float | None = None  # seconds; None: as the deployment lets commands of this source wait
    other_roles: tuple[str, ...] = ()  # of a school's own, lower case, which are no student's

    def options(self, parts: Parts) -> dict[str, Any]:
        """Return it as JSON can keep it, with what was found out about the files."""
        options = asdict(self) | {"issued_at": self.issued_at and format_time(self.issued_at)}
        del options["source"]
        if not self.wait_for_catalog:
            del options["wait_for_catalog"]
        if parts.left_out:
            options["left_out"] = list(parts.left_out)
        return options | {"by_role": any(part == "roles" for _, part in parts.files)}


def namespaces(digest: str, source: str, options: Mapping[str, Any], issued_at: datetime) -> tuple[UUID, UUID]:
    """Return what the ids of commands are derived from: of rows with a time of their own, and of the others.

    The same file, read in the same way, gives the same ids; and what would be another command, another id.
    """
    read = {name: value for name, value in options.items() if name != "left_out"}
    own = uuid5(_NAMESPACE, f"{digest}\n{source}\n{json.dumps(read, sort_keys=True)}")
    return own, uuid5(own, format_time(issued_at))


class Content(NamedTuple):
    """What is imported."""

    path: str  # as it is shown
    parts: Parts
    digest: str


def plan(
    engine: Engine, content: Content, request: ImportRequest, *, at_once: bool, tell: Tell = lambda *_: None
) -> int:
    """Plan an import; return its id. With `at_once` students and courses go to the catalog first.

    Raises FileError, CatalogError; then nothing was planned.
    """
    with engine.connect() as connection:
        imports.forget_plans(connection, _KEPT)
        now = imports.clock(connection)
        connection.commit()
        if request.issued_at is not None and request.issued_at > now + MAX_AHEAD:
            raise FileError(f"The time {format_time(request.issued_at)} is yet to come; say one that is past.")
        planning.be_patient(connection)
        issued_at = request.issued_at or now
        import_id = _create(connection, content, request, issued_at)
        rows = _read(content.parts, _reading(content.parts, request, now.date(), issued_at), tell)
        record = imports.get(connection, import_id)
        ids = _namespaces_of(record)
        planning.stage(connection, _staged(rows, ids, now))
        import_entries.keep_entries(connection, import_id)
        if at_once:
            load_catalog(engine, connection, import_id, by_role=by_role(record))
        by, waits = named_by(record), record.waits_until is not None
        planning.compare(connection, import_id, issued_at, by=by, by_role=by_role(record), waits=waits)
        withheld = _add_absent(connection, record, ids[1], request.limits)
        scope = None if withheld else record.scope
        import_snapshots.add_withdraws(connection, import_id, scope, record.issued_at, ids[1])
        imports.keep_plan(connection, import_id, planning.counts(connection, import_id), withheld)
        connection.commit()
    return import_id


def load_catalog(engine: Engine, connection: Connection, import_id: int, *, by_role: bool) -> None:
    """Put the students and courses of the files into the catalog, in a transaction of its own. Raises CatalogError."""
    with engine.begin() as other:
        planning.be_patient(other)
        people = import_entries.newcomers(connection, import_id, by_role=by_role)
        catalog.upsert_students(other, (NewStudent(sis_id=sis_id, name=name) for sis_id, name in people))
        courses = import_entries.openings(connection, import_id)
        catalog.upsert_courses(
            other, (NewCourse(sis_id=sis_id, code=code, title=title) for sis_id, code, title in courses)
        )


def by_role(record: ImportRecord) -> bool:
    """Tell whether a file of this import says who of the users is a student."""
    return bool(record.options.get("by_role"))


def named_by(record: ImportRecord) -> str:
    """Return by what the files name students and courses: `id` or `sis_id`."""
    return str(record.options["by"]) if record.format == "plain" and not record.undo_of else "sis_id"


def _namespaces_of(record: ImportRecord) -> tuple[UUID, UUID]:
    own, whole = namespaces(record.digest, record.source, record.options, record.issued_at)
    if record.waits_until is None or named_by(record) != "id":
        return own, whole
    told = uuid5(
        whole, format_time(record.waits_until)
    )  # its commands say `wait_until`, which is part of their content
    return told, told


def _is_full(parts: Parts, request: ImportRequest) -> bool:
    return parts.modes.get("enrollments") == "bulk" if request.full is None else request.full


def _create(connection: Connection, content: Content, request: ImportRequest, issued_at: datetime) -> int:
    parts = content.parts
    has_rows = any(part == "enrollments" for _, part in parts.files)
    return imports.create(
        connection,
        path=content.path,
        files=[file.name for file, _ in parts.files],
        format_=parts.format.NAME,
        digest=content.digest,
        source=request.source,
        options=request.options(parts),
        scope=request.scope if has_rows and _is_full(parts, request) else None,
        issued_at=issued_at,
    )


def _reading(parts: Parts, request: ImportRequest, today: date, issued_at: datetime) -> Reading:
    modes = {"enrollments": "bulk", **parts.modes} if _is_full(parts, request) else parts.modes
    others = frozenset(request.other_roles)
    return Reading(today, request.statuses, request.course_is, request.by, modes, issued_at, others)


def _add_absent(connection: Connection, record: ImportRecord, namespace: UUID, limits: Limits) -> str | None:
    """Add the absent to the plan of a full snapshot; return why they stay, if they do."""
    scope = cast(import_snapshots.Scope | None, record.scope)
    if scope is None:
        return None
    import_snapshots.keep_scope(connection, record.id)
    asking = import_snapshots.asking(connection, record.id)
    import_snapshots.add_absent(connection, record.id, scope, record.issued_at, namespace)
    drops = import_snapshots.drops(connection, record.id, scope)
    waits = record.waits_until is not None
    wrong = import_snapshots.invalid(connection, record.id, scope, commands_wait=waits and named_by(record) == "id")
    reason = objection(limits, asking, wrong, drops, waits=waits)
    if reason is not None:
        import_snapshots.withhold(connection, record.id, reason)
    return reason


def _read(parts: Parts, reading: Reading, tell: Tell) -> Iterator[tuple[int, str, EnrollmentRow | CatalogRow]]:
    """Give every row of every file, with the number and the name of its file."""
    before = 0
    for index, (file, part) in enumerate(parts.files, 1):
        so_far = before

        def told(done: int, so_far: int = so_far) -> None:
            tell(so_far + done, parts.size)

        with closing(file.lines(told)) as lines:
            for item in parts.format.read(Sheet(file.name, lines), part, reading):
                yield index, file.name, item
        before += file.size


def _staged(
    rows: Iterable[tuple[int, str, EnrollmentRow | CatalogRow]], ids: tuple[UUID, UUID], now: datetime
) -> Iterator[tuple[Any, ...]]:
    """Turn rows into those of the staging table: see `planning.stage`."""
    own, whole = ids
    nothing = (None,) * 5
    for number, (file, name, item) in enumerate(rows, 1):
        if isinstance(item, CatalogRow):
            wrong = _unfit(item.line, item.sis_id, item.alias or "", item.parent or "")
            if wrong is None and len(item.code or "") + len(item.title or "") > _LONGEST_NAME:
                wrong = _too_long(item.line)
            if wrong is None:
                line, kind, *entry = item
                yield (kind, number, file, line, *(None,) * 12, *entry)
                continue
            item = wrong  # noqa: PLW2901 - a rejected row instead
        if item.code is None:
            item = _sound(item, now)  # noqa: PLW2901 - as above
        else:
            student, course, section = (it[:_LONGEST] for it in item[1:4])
            item = item._replace(student=student, course=course, section=section)  # noqa: PLW2901 - as above
        planned = None if item.code is None else "ignored" if item.ignored else "rejected"
        # A row that has a range of days asks for something else once one of them has come.
        asks = f"{name}:{item.line}:{item.action}:{item.effective_at or ''}"
        command_id = uuid5(own if item.issued_at else whole, asks) if item.code is None else None
        line, *asked, code, message, _ = item
        yield ("row", number, file, line, *asked, planned, code, message, command_id, *nothing)


def _sound(item: EnrollmentRow, now: datetime) -> EnrollmentRow:
    """Return the row, rejected where no format but PostgreSQL or the worker would refuse it."""
    wrong = _unfit(item.line, item.student, item.course, item.section)
    if wrong is not None:
        return wrong
    if item.issued_at is not None and item.issued_at > now + MAX_AHEAD:
        message = f"The time {format_time(item.issued_at)} is yet to come; correct it."
        return rejected(item.line, "issued_in_future", message, student=item.student, course=item.course)
    return item


def _unfit(line: int, *ids: str) -> EnrollmentRow | None:
    """Return a rejected row where an id is too long or has what nobody sees, such as a line break or a BOM."""
    together = "".join(ids)  # one look at all of them: this is called for each row
    if together.isprintable() and (len(together) <= _LONGEST or all(len(it) <= _LONGEST for it in ids)):
        return None
    unseen = next((it for it in ids if len(it) <= _LONGEST and not it.isprintable()), None)
    if unseen is None:
        return _too_long(line)
    what = f"The id {unseen!a} has a character that cannot be seen, or a line break"
    return rejected(line, "invalid_id", f"{what}; take it out, or see whether a quote is missing.")


def _too_long(line: int) -> EnrollmentRow:
    what = f"An id has more than {_LONGEST} characters, or a name more than {_LONGEST_NAME:,}"
    return rejected(line, "too_long", f"{what}; see whether a quote is missing.")
