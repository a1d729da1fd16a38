"""The formats that can be imported, one module each. A new format is one module more, and one word in `FORMATS`."""

from typing import Final

from tasks.imports.formats import canvas, oneroster, plain
from tasks.imports.formats.rows import FileError, Format, Sheet

FORMATS: Final[tuple[Format, ...]] = (oneroster, canvas, plain)


def named(name: str) -> Format:
    """Return the format of this name."""
    return next(format_ for format_ in FORMATS if name == format_.NAME)


def detect(sheet: Sheet, *, among: tuple[Format, ...] = FORMATS) -> tuple[Format, str] | None:
    """Tell by its header of which format a file is, and which part; None where it is none."""
    columns = frozenset(sheet.columns)
    found = ((format_, format_.part_of(columns)) for format_ in among)
    return next(((format_, part) for format_, part in found if part), None)


def unknown(sheet: Sheet, among: tuple[Format, ...], *, alone: bool) -> FileError:
    """Return what to tell of a file whose header nobody knows."""
    known = "; ".join(f"{format_.NAME}: {format_.EXPECTED}" for format_ in among)
    hint = "" if alone else " If it is another file, take it out."
    what = f"this header is not known; {sheet.describe()}. Needed is one of {known}.{hint}"
    return FileError(f"{sheet.name}, line 1: {what}")
