"""The first page: how everything is, and what happened lately; and the runbook that its warnings lead to."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import Query, Request
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.responses import Response

from gateway.admin.charts import chart
from gateway.admin.overview import overview_of, place_of
from gateway.admin.pages import page_router, render

router = page_router()

_RUNBOOK: Final = Path(__file__).parents[2] / "runbook.md"  # docs/operations.md, which every installation has here
_HEADING: Final = re.compile(r"<h([1-3])>(.*?)</h\1>")

_ELSEWHERE: Final = re.compile(r'<a href="(?!#)[^"]*">(.*?)</a>')  # other documents are not here


@router.get("")
async def show(request: Request, window: Annotated[Literal["hour", "day", "week"], Query()] = "hour") -> Response:
    """Show how everything is."""
    shown = await overview_of(request).show(window)
    steps = shown.activity.steps if shown.activity else ()
    return render(
        request,
        "overview.html",
        shown=shown,
        place_of=place_of,
        commands=chart((it.begin, it.applied, it.rejected) for it in steps),
        times=chart((it.begin, it.median or 0, (it.slow or 0) - (it.median or 0)) for it in steps),
    )


@router.get("/runbook")
async def show_runbook(request: Request) -> Response:
    """Show what to do about each alert, code and warning."""
    return render(request, "runbook.html", runbook=_runbook())


@cache
def _runbook() -> Markup:
    """Return the runbook, with the anchors that the log and the alerts name."""

    def with_anchor(found: re.Match[str]) -> str:
        level, words = found.groups()
        anchor = re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]*>", "", words).lower()).replace(" ", "-")
        return f'<h{level} id="{anchor}">{words}</h{level}>'

    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(_RUNBOOK.read_text(encoding="utf-8"))
    html = _ELSEWHERE.sub(r"\1", html)
    return Markup(_HEADING.sub(with_anchor, html))  # noqa: S704 - our own document, rendered without raw HTML
