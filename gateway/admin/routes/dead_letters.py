"""Dead letters: shown, replayed, corrected, discarded."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import Depends, Query, Request
from starlette.responses import Response

from gateway.admin import decisions, template_filters, views
from gateway.admin.decisions import AT_ONCE, CannotReplay, Decided
from gateway.admin.errors import page_not_found
from gateway.admin.form import numbers
from gateway.admin.pages import page_router, render, see
from gateway.admin.session import Posted, Who, text_of
from gateway.dependencies import Held
from models import dead_letters
from models.arrays import storable

router = page_router()

Before = Annotated[int | None, Query()]  # the id that the page before ended with

ANY: Final = "any"  # in the place of a code
PAGE: Final = 50  # dead letters
_ROWS: Final = (6, 24)  # of the field for a payload
_TOO_LONG: Final = "The payload is too long to be corrected here. Nothing was sent."
_OUTCOMES: Final = 5  # commands of one replay whose outcome is shown


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are asked for besides the code, as a person typed it; times are in UTC."""

    source: Annotated[str, Query(max_length=64)] = ""
    since: Annotated[str, Query(max_length=40)] = ""
    until: Annotated[str, Query(max_length=40)] = ""

    @property
    def said(self) -> dict[str, str]:
        """What was typed."""
        return {name: it for name in ("source", "since", "until") if (it := getattr(self, name).strip())}

    def conditions(self) -> dict[str, Any]:
        """Return what to ask for. What is no time or can be no source is left out of it."""
        source = self.said.get("source")
        times = {name: _time(getattr(self, name)) for name in ("since", "until")}
        return {"source": source if source and storable(source) else None, **times}


Asked = Annotated[LetterFilter, Depends()]


@router.get("/dead-letters")
async def groups(request: Request, gateway: Held) -> Response:
    """Show how many there are, by reason."""
    return render(request, "dead_letters.html", groups=await gateway.read(dead_letters.counts))


@router.get("/dead-letters/of/{code}")
async def group(request: Request, gateway: Held, code: str, asked: Asked, before: Before = None) -> Response:
    """Show those of one reason, or of any, page by page."""
    if not storable(code):
        raise page_not_found()
    return await _group(request, gateway, code, None, before=before, asked=asked)


@router.post("/dead-letters/decide")
async def decide(request: Request, gateway: Held, who: Who, form: Posted) -> Response:
    """Replay or discard those that were selected."""
    ids, code, decision = numbers(form.getlist("id")), text_of(form, "code"), text_of(form, "decision")
    if not storable(code):
        raise page_not_found()
    if decision == "replay":
        decided = await decisions.replay_many(gateway.settings, ids, who.source)
    elif decision == "replay-all":
        decided = await decisions.replay_oldest(gateway.settings, code, who.source)
    elif decision == "discard" and ids and text_of(form, "sure") != "yes":
        back = f"/admin/dead-letters/{ids[0]}" if len(ids) == 1 else f"/admin/dead-letters/of/{quote(code, safe='')}"
        return render(request, "dead_letter_sure.html", ids=ids, code=code, back=back)
    elif decision == "discard":
        decided = await decisions.discard(gateway.settings, ids, who.source)
    else:
        raise page_not_found()
    return await _group(request, gateway, code, decided)


@router.get("/dead-letters/{letter_id}")
async def show(request: Request, gateway: Held, letter_id: int) -> Response:
    """Show one, and what came of it where it was decided about."""
    return await _letter(request, gateway, letter_id)


@router.post("/dead-letters/{letter_id}/replay")
async def replay(request: Request, gateway: Held, who: Who, form: Posted, letter_id: int) -> Response:
    """Replay one, as it is or corrected."""
    payload = text_of(form, "payload") if text_of(form, "as") == "corrected" else None
    if payload is not None:
        letter = await gateway.read(dead_letters.get, letter_id)
        if template_filters.is_long(letter.payload):  # a page never showed it whole
            return await _letter(request, gateway, letter_id, wrong=_TOO_LONG, status=422)
    try:
        await decisions.replay_one(gateway.settings, letter_id, payload, who.source)
    except CannotReplay as error:
        return await _letter(request, gateway, letter_id, payload=payload, wrong=error.reason, status=422)
    return see(f"/admin/dead-letters/{letter_id}")


def _time(typed: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(typed.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _group(
    request: Request,
    gateway: Held,
    code: str,
    decided: Decided | None,
    *,
    before: int | None = None,
    asked: LetterFilter | None = None,
) -> Response:
    asked = asked or LetterFilter()
    counts = {count.code: count.letters for count in await gateway.read(dead_letters.counts)}
    wanted = {"code": None if code == ANY else code, **asked.conditions()}
    newest = await gateway.read(dead_letters.newest, **wanted, before=before, limit=PAGE + 1)
    known = code == ANY or template_filters.meaning(code) or asked.said
    if not newest and decided is None and before is None and not known:
        raise page_not_found()
    path, shown = f"/admin/dead-letters/of/{quote(code, safe='')}", newest[:PAGE]
    query = urlencode(asked.said)
    return render(
        request,
        "dead_letter_group.html",
        code=code,
        letters=shown,
        total=sum(counts.values()) if code == ANY else counts.get(code, 0),
        codes=[ANY, *sorted({*counts, code} - {ANY})],
        asked=asked,
        first=f"{path}?{query}" if before is not None else None,
        next=f"{path}?{urlencode({**asked.said, 'before': shown[-1].id})}" if len(newest) > PAGE else None,
        at_once=AT_ONCE,
        decided=decided,
    )


async def _letter(
    request: Request, gateway: Held, letter_id: int, *, payload: str | None = None, wrong: str = "", status: int = 200
) -> Response:
    letter = await gateway.read(dead_letters.get, letter_id)
    shown = template_filters.pretty(letter.payload) if payload is None else payload
    records = {}
    for command_id in (letter.replayed_as or ())[:_OUTCOMES]:
        records[command_id] = await views.outcome(gateway, command_id, 1.0)
    known: dict[int, Any] = await gateway.read(views.courses_named, [r for r in records.values() if r])
    least, most = _ROWS
    return render(
        request,
        "dead_letter.html",
        status=status,
        letter=letter,
        payload=shown,
        rows=min(most, max(least, shown.count("\n") + 2)),
        wrong=wrong,
        records=records,
        known=known,
        decided=None,
    )
