"""From a path to the id of an import: a new plan, or one of the same content that did not get to its end."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from enrollment.waiting import AT_ONCE, Policy
from models import imports
from tasks.imports import run
from tasks.imports.files import Parts, opened, readable
from tasks.imports.formats import named
from tasks.imports.formats.rows import FileError
from tasks.imports.plan import Content, ImportRequest, Tell, plan


class Started(NamedTuple):
    """What to apply."""

    import_id: int
    left_out: tuple[str, ...]  # files that are none of ours
    resumed: bool = False


def start(
    engine: Engine,
    path: Path,
    request: ImportRequest,
    *,
    format_name: str | None = None,
    as_dated: bool = False,
    at_once: bool,
    policy: Policy = AT_ONCE,
    shown: str | None = None,
    tell: Tell = lambda *_: None,
) -> Started:
    """Plan the import of a path, or find the one that was cut off. With `as_dated` it is issued when the file was.

    A request without a source gets that of the format. One that does not say how long rows wait has it of the `policy`.
    Raises FileError, CatalogError.
    """
    with opened(path) as (files, newest):
        parts = Parts.of(files, named(format_name) if format_name else None)
        digest = parts.digest()
        request = replace(request, source=request.source or f"import/{parts.format.NAME}")
        longest = timedelta.max if policy.longest is None else policy.longest
        if request.wait_for_catalog is None:
            request = replace(
                request, wait_for_catalog=min(policy.patience_of(request.source), longest).total_seconds()
            )
        elif request.wait_for_catalog > longest.total_seconds():
            days = longest / timedelta(days=1)
            raise FileError(f"Rows may wait {days:g} days at most (ENROLLMENT_LONGEST_WAIT); let them wait less.")
        if as_dated:
            with engine.connect() as connection:
                request = replace(request, issued_at=min(newest, imports.clock(connection)))
        if at_once:
            with engine.connect() as connection:
                begun = imports.unfinished(connection, digest, request.source, request.options(parts))
            if begun is not None and not run.is_settled(engine, begun):
                return Started(begun, parts.left_out, resumed=True)
        content = Content(shown or readable(str(path)), parts, digest)
        import_id = plan(engine, content, request, at_once=at_once, tell=tell)
        return Started(import_id, parts.left_out)
