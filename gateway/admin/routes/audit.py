"""The audit: who decided what by hand."""

from typing import Annotated, Final

from fastapi import Query, Request
from starlette.responses import Response

from gateway.admin.pages import page_router, render
from gateway.dependencies import Held
from models import audit

router = page_router()

PAGE: Final = 50  # entries


@router.get("/audit")
async def entries(
    request: Request, gateway: Held, before: Annotated[int | None, Query(le=2**63 - 1)] = None
) -> Response:
    """Show who did what, the newest first."""
    found = await gateway.read(audit.newest, before=before, limit=PAGE + 1)
    shown = found[:PAGE]
    return render(
        request,
        "audit.html",
        entries=shown,
        first="/admin/audit" if before is not None else None,
        next=f"/admin/audit?before={shown[-1].id}" if len(found) > PAGE else None,
    )
