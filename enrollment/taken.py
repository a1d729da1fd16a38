"""Pairs that were taken without a command: their rows were deleted. A trigger tells of them as of an unenroll.

Such a record has an id that the database made, and no content: it was no message, and none can repeat it. Whoever sends
commands may put any of these texts into `source`, so the text alone says nothing.
"""

from collections.abc import Mapping
from typing import Final

from enrollment.fold import Record

REASONS: Final[Mapping[str, str]] = {  # by `source`, as the trigger writes it (migrations, revision 0009)
    "catalog:student-deleted": "the student was deleted",
    "catalog:course-deleted": "the course was deleted",
    "database:row-deleted": "the row was deleted from the table",
}


def taken_because(record: Record) -> str | None:
    """Return why these pairs were taken; None where a command says what became of them."""
    return None if record.content_hash or record.source is None else REASONS.get(record.source)
