"""Imports: a file sent, its plan shown and applied, followed while it goes on, and undone."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, cast

from fastapi import Depends, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from enrollment.errors import EnrollmentError
from gateway.admin import importing
from gateway.admin.errors import page_not_found
from gateway.admin.importing import FileError, ImportRequest, Work
from gateway.admin.pages import is_htmx, page_router, render, see
from gateway.admin.session import Posted, Who, text_of, uploaded
from gateway.dependencies import Held
from models import import_rows, imports
from models.imports import ImportRecord, UnknownImport
from tasks.imports.formats import FORMATS

router = page_router()

Uploaded = Annotated[FormData, Depends(uploaded)]

PAGE: Final = 20  # imports
_COURSES: Final = 10  # of a plan, the most surprising first
_FORMATS: Final = [format_.NAME for format_ in FORMATS]
_NAME: Final = re.compile(r"[A-Za-z0-9._:/-]{1,50}")
_LONGEST: Final = 5  # digits: some years
_SHOWN: Final = 60  # characters of a file's name, the last ones: a file system takes 255 bytes
_UNSAFE: Final = re.compile(r"[^\w .()-]")


@router.get("/imports")
async def show_all(
    request: Request, gateway: Held, before: Annotated[int | None, Query(le=2**63 - 1)] = None
) -> Response:
    """Show the imports, the newest first, and a form for one more."""
    return await _all(request, gateway, before)


@router.post("/imports")
async def upload(request: Request, gateway: Held, form: Uploaded) -> Response:
    """Take a file, of any size, and plan its import."""
    file, name = form.get("file"), text_of(form, "name").strip()
    if not isinstance(file, UploadFile) or not file.filename:
        return await _all(request, gateway, None, wrong="Choose a file: a CSV, or a zip of several.")
    if name and not _NAME.fullmatch(name):
        return await _all(request, gateway, None, wrong="A name has 1 to 50 of A-Z a-z 0-9 . _ : / and -.")
    hours = text_of(form, "wait_hours").strip()
    if hours and not (hours.isascii() and hours.isdecimal() and len(hours) <= _LONGEST):
        return await _all(request, gateway, None, wrong="Hours to wait for the catalog are a whole number, 0 or more.")
    said, full = text_of(form, "format"), text_of(form, "full")
    wanted = ImportRequest(
        source=f"import/{name}" if name else "",
        full={"yes": True, "no": False}.get(full),
        by="sis_id" if text_of(form, "by") == "sis_id" else "id",
        wait_for_catalog=float(hours) * 3600 if hours else None,
        course_is="course" if text_of(form, "course_is") == "course" else "class",
        other_roles=tuple(sorted(filter(None, map(str.strip, text_of(form, "other_roles").lower().split(","))))),
    )
    shown = _UNSAFE.sub("_", PurePath(file.filename).name)[-_SHOWN:].lstrip(".") or "upload.csv"
    try:
        format_name = said if said in _FORMATS else None
        import_id = await importing.plan_upload(gateway.settings, shown, cast(Any, file.file), wanted, format_name)
    except FileError as error:
        return await _all(request, gateway, None, wrong=str(error))
    return see(f"/admin/imports/{import_id}")


@router.get("/imports/{import_id}")
async def show(request: Request, gateway: Held, import_id: int) -> Response:
    """Show one: its plan, how far it has got, or what came of it."""
    return await _one(request, gateway, import_id)


@router.post("/imports/{import_id}/apply")
async def apply(
    request: Request,
    gateway: Held,
    form: Posted,
    who: Who,
    import_id: int,
) -> Response:
    """Apply a plan, or go on with it."""
    await _record(gateway, import_id)
    _work(request).begin(gateway.settings, import_id, who.source, again=text_of(form, "again") == "yes")
    return see(f"/admin/imports/{import_id}")


@router.post("/imports/{import_id}/undo")
async def undo(request: Request, gateway: Held, form: Posted, import_id: int) -> Response:  # noqa: ARG001 - is checked
    """Plan the undoing of one."""
    try:
        plan = await importing.undo(gateway.settings, import_id)
    except EnrollmentError as error:
        return await _one(request, gateway, import_id, wrong=str(error))
    return see(f"/admin/imports/{plan}")


@router.get("/imports/{import_id}/report.{kind}")
async def download(gateway: Held, import_id: int, kind: Literal["csv", "json"]) -> Response:
    """Give the report."""
    record = await _record(gateway, import_id)
    return StreamingResponse(
        importing.pieces(gateway.settings, record, kind),
        media_type="text/csv; charset=utf-8" if kind == "csv" else "application/json",
        headers={"Content-Disposition": f'attachment; filename="import-{import_id}.{kind}"'},
    )


async def _all(request: Request, gateway: Held, before: int | None, *, wrong: str = "") -> Response:
    found = await gateway.read(imports.newest, before=before, limit=PAGE + 1)
    shown = found[:PAGE]
    return render(
        request,
        "imports.html",
        status=422 if wrong else 200,
        imports=shown,
        wrong=wrong,
        formats=_FORMATS,
        first="/admin/imports" if before is not None else None,
        next=f"/admin/imports?before={shown[-1].id}" if len(found) > PAGE else None,
    )


async def _one(request: Request, gateway: Held, import_id: int, *, wrong: str = "") -> Response:
    record = await _record(gateway, import_id)
    work = _work(request)
    values: dict[str, Any] = {
        "record": record,
        "is_at": work.is_at(import_id),
        "wrong": wrong or work.failures.get(import_id, ""),
        "done": await gateway.read(imports.count_sent, import_id, max(record.sent, record.decided)),
        "settled": await gateway.read(imports.count_sent, import_id, record.decided),
    }
    if is_htmx(request):
        return render(request, "_import.html", **values)
    courses = await gateway.read(import_rows.surprising, import_id, _COURSES) if record.state == "planned" else []
    reasons = await gateway.read(import_rows.reasons, import_id)
    status = 422 if wrong else 200
    return render(request, "import.html", status=status, courses=courses, reasons=reasons, **values)


async def _record(gateway: Held, import_id: int) -> ImportRecord:
    try:
        return await gateway.read(imports.get, import_id)
    except UnknownImport:
        raise page_not_found() from None


def _work(request: Request) -> Work:
    """Return what this process is at."""
    state = request.app.state
    if not hasattr(state, "imports"):
        state.imports = Work()
    return cast(Work, state.imports)
