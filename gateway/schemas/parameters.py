"""What may stand in a path, a query or a header."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header, Path, Query
from pydantic import BeforeValidator

from enrollment.commands import MAX_ID, parse_uuid

PAGE: Final = 100
MAX_PAGE: Final = 1000


def _digits(value: Any) -> Any:
    """Take what JSON would take for an integer: no sign, no blanks, no `1_000`, no `1.0`."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("not an integer, in digits")
    return value


def _page_size(value: Any) -> Any:
    """Say the limits in one sentence, however they were missed."""
    short = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_PAGE))
    if not (short and 1 <= int(value) <= MAX_PAGE):
        raise ValueError(f"from 1 to {MAX_PAGE} on a page; the next page is asked for with `after`")
    return value


StudentId = Annotated[int, Path(ge=1, le=MAX_ID, examples=[42], description="The student."), BeforeValidator(_digits)]
CourseId = Annotated[int, Path(ge=1, le=MAX_ID, examples=[101], description="The course."), BeforeValidator(_digits)]
CommandId = Annotated[UUID, Path(description="The command."), BeforeValidator(parse_uuid)]
After = Annotated[
    int | None,
    Query(ge=0, le=MAX_ID, description="The id that the page before ended with."),
    BeforeValidator(_digits),
]
Limit = Annotated[
    int, Query(ge=1, le=MAX_PAGE, description="How many there may be on the page."), BeforeValidator(_page_size)
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Makes a repeat safe: the same key, in the same kind of request, is the same command.",
    ),
]
