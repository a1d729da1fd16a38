"""Reads the text of a file as an import does, up to the database."""

import io
from collections.abc import Iterable
from datetime import date
from typing import Any

from tasks.imports.formats import detect, named
from tasks.imports.formats.rows import CatalogRow, EnrollmentRow, Reading, Sheet

TODAY = date(2026, 2, 1)


def read(format_name: str, *lines: str, **reading: Any) -> list[EnrollmentRow | CatalogRow]:
    """Return the rows of a file with these lines."""
    format_ = named(format_name)
    sheet = Sheet("file.csv", io.StringIO("\n".join(lines) + "\n", newline=""))
    found = detect(sheet, among=(format_,))
    assert found is not None
    return list(format_.read(sheet, found[1], Reading(TODAY, **reading)))


def asked(rows: Iterable[EnrollmentRow | CatalogRow]) -> list[tuple[int, str | None]]:
    """Return of each row the line, and what it asks for or why not."""
    return [(row.line, row.code or row.action) for row in rows if isinstance(row, EnrollmentRow)]
