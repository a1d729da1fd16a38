"""Students: found, shown, and enrolled."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from enrollment.client import InvalidCommand, read_command
from enrollment.errors import ErrorCode
from enrollment.fold import Record
from gateway.admin import importing, views
from gateway.admin.form import NoIds, Ticked, numbers
from gateway.admin.pages import PAGE, After, SearchText, is_htmx, links, page_router, render, see
from gateway.admin.session import Posted, Who, text_of
from gateway.admin.template_filters import brief
from gateway.dependencies import Held
from models import audit, queries
from models.queries import search

router = page_router()

_PATIENCE: Final = 2.0  # seconds that a save waits before it says that it waits
_POLL: Final = 10.0  # seconds that one question for an outcome is held open


@router.get("/students")
async def find(request: Request, gateway: Held, q: SearchText = "", after: After = None) -> Response:
    """Find students; all of them where nothing is said."""
    if q.strip():
        page = await gateway.read.lookup(search.find_students, q, after=after, limit=PAGE)
    else:
        page = await gateway.read.lookup(queries.students, after=after, limit=PAGE)
    first, following = links(request, after, page.after, q=q)
    return render(request, "students.html", q=q, page=page, first=first, next=following)


@router.get("/students/{student_id}")
async def show(
    request: Request, gateway: Held, student_id: int, *, q: SearchText = "", command: UUID | None = None
) -> Response:
    """Show a student's courses and what happened to them; and what came of `command`, which was just sent."""
    values = await gateway.read.lookup(views.student_page, student_id, q)
    if command is not None:
        record = await views.outcome(gateway, command, 0)
        if record is None or record.student_id == student_id:
            values |= _said(student_id, command, record)
    return render(request, "student.html", **values)


@router.get("/students/{student_id}/choices")
async def choose(
    request: Request,
    gateway: Held,
    student_id: int,
    *,
    q: SearchText = "",
    add: Annotated[list[str] | None, Query(max_length=2000)] = None,
) -> Response:
    """Show courses to add; those that are ticked stay."""
    enrolled = await gateway.read.courses_of(student_id)
    ids = [course.id for course in enrolled]
    offered = await gateway.read.lookup(views.choices, ids, q, numbers(add or ()))
    return render(
        request,
        "_choices.html",
        q=q,
        chosen=offered.chosen,
        choices=offered.choices,
        more_choices=offered.more_choices,
        is_search=True,
    )


@router.post("/students/{student_id}/courses")
async def save(request: Request, gateway: Held, who: Who, form: Posted, student_id: int) -> Response:
    """Send what was ticked and unticked, as one command."""
    ids = text_of(form, "ids")
    try:
        ticked = Ticked.of(form)
    except NoIds as error:
        return await _not_sent(request, gateway, student_id, ids, str(error), ids_wrong=str(error))
    enrolled = await gateway.read.courses_of(student_id)
    change = ticked.change(student_id, frozenset(course.id for course in enrolled))
    if change is None:
        return await _answer(request, gateway, student_id, {"said": "nothing"})
    try:
        read_command({"command": change.kind.value, "student_id": student_id, "course_ids": list(change.course_ids)})
    except InvalidCommand as error:
        return await _not_sent(request, gateway, student_id, ids, str(error))

    async def note(ids: Sequence[UUID]) -> None:  # before it is sent: nothing is changed that nobody is known for
        await gateway.read(audit.add, who.source, audit.CHANGED, [audit.student(student_id)], command_ids=ids)

    submitted = await gateway.submitter.submit([change], source=who.source, wait=_PATIENCE, note=note)
    command_id = submitted.commands[0].command_id
    if not is_htmx(request):
        return see(f"/admin/students/{student_id}?command={command_id}")
    record = await views.outcome(gateway, command_id, 0)
    return await _answer(request, gateway, student_id, _said(student_id, command_id, record, ids=ids))


@router.get("/students/{student_id}/outcome/{command_id}")
async def outcome(
    request: Request,
    gateway: Held,
    student_id: int,
    command_id: UUID,
    *,
    ids: Annotated[str, Query(max_length=20_000)] = "",
    tries: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Wait for what comes of a save."""
    record = await views.outcome(gateway, command_id, _POLL)
    said = _said(student_id, command_id, record, ids=ids, tries=tries + 1)
    return await _answer(request, gateway, student_id, said)


@router.get("/students/{student_id}/courses/{course_id}")
async def history(request: Request, gateway: Held, student_id: int, course_id: int) -> Response:
    """Show why a student is, or is not, enrolled in a course."""
    page = await gateway.read.lookup(views.history_page, student_id, course_id)
    reason = await gateway.read(importing.why, page)
    return render(request, "_history.html" if is_htmx(request) else "history.html", reason=reason, **page)


@router.get("/students/{student_id}/commands")
async def commands(
    request: Request, gateway: Held, student_id: int, before: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """Show older commands about a student."""
    student = await gateway.read.lookup(queries.student, student_id)
    student_commands = await gateway.read.lookup(views.student_commands, student_id, before)
    template = "_commands.html" if is_htmx(request) else "commands.html"
    return render(
        request,
        template,
        student=student,
        records=student_commands.records,
        known=student_commands.known,
        older=student_commands.older,
    )


async def _not_sent(
    request: Request, gateway: Held, student_id: int, ids: str, reason: str, *, ids_wrong: str = ""
) -> Response:
    said = {"said": "invalid", "reason": reason, "ids": ids, "ids_wrong": ids_wrong}
    return await _answer(request, gateway, student_id, said, status=422)


async def _answer(
    request: Request, gateway: Held, student_id: int, said: dict[str, Any], status: int = 200
) -> Response:
    """Return the answer to a save: its outcome where htmx asked, else the whole page."""
    values = {**await gateway.read.lookup(views.student_page, student_id), **said}
    if not is_htmx(request):
        return render(request, "student.html", status=status, **values)
    return render(request, "_saved.html", status=status, **values)


def _said(student_id: int, command_id: UUID, record: Record | None, *, ids: str = "", tries: int = 0) -> dict[str, Any]:
    """Return what to say of a command that was sent."""
    if record is None:
        return {"said": "waiting", "student_id": student_id, "command_id": command_id, "tries": tries, "ids": ids}
    values: dict[str, Any] = {"said": "kept" if record.waiting else record.outcome, "record": record}
    if record.outcome != "rejected":
        return values
    typed = set(numbers(ids.replace(",", " ").replace(";", " ").split()))
    wrong = [brief(e) for e in record.errors if e.code == ErrorCode.UNKNOWN_COURSES and typed & set(e.ids)]
    return values | {"ids": ids, "ids_wrong": " ".join(wrong)}
