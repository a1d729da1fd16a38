"""The change feed, for who was away longer than the stream is long, and the snapshot with which a copy begins."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from enrollment.commands import IssuedAt
from gateway.dependencies import Held
from gateway.openapi import problems
from gateway.problems import Problem
from gateway.schemas.parameters import PAGE, Limit
from models import feed

router = APIRouter(tags=["events"])

_PROBLEMS = problems({410: "What comes after the cursor is not kept, or not known.", 422: "It is no cursor."})
_NO_STORE = {"Cache-Control": "no-store"}


@router.get("/changes", responses=_PROBLEMS, response_class=Response)
async def read_changes(
    gateway: Held,
    after: Annotated[str | None, Query(max_length=80, description="The cursor of the page before.")] = None,
    since: Annotated[IssuedAt | None, Query(description="Instead: from this time on, and a little before.")] = None,
    ahead: Annotated[  # noqa: FBT002 - a query parameter
        bool, Query(description="With events that will come again, because their place is open.")
    ] = False,
    limit: Limit = PAGE,
) -> Response:
    """The result events of all commands that are kept, in an order that never changes: `events`, each on a line.

    Go on with `cursor`, at once where `more` is true. Without `after`, the feed begins with the oldest that is kept.
    """
    try:
        if after is None and since is not None:
            after = str(await gateway.read(feed.since, since))
        page = await gateway.read(feed.page, after, rows=limit, ahead=ahead)
    except feed.WrongCursor as error:
        raise Problem(422, "invalid_request", str(error)) from None
    except feed.ChangesGone as error:
        raise Problem(410, "changes_gone", str(error)) from None
    events = ",\n".join(page.events)
    content = f'{{"cursor":"{page.cursor}","more":{str(page.more).lower()},"events":[\n{events}\n]}}\n'
    return Response(content, media_type="application/json", headers=_NO_STORE)


@router.get("/snapshot", response_class=StreamingResponse)
async def read_snapshot(gateway: Held) -> Response:
    """All enrollments with their stamps, as JSON Lines: first `cursor`, from which `/changes` goes on, at last `pairs`.

    A snapshot without its last line, the number of enrollments, was cut off.
    """
    lines = iterate_in_threadpool(gateway.read.stream(feed.snapshot))
    return StreamingResponse(lines, media_type="application/jsonl", headers=_NO_STORE)
