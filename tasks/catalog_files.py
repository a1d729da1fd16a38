"""Students and courses from CSV files, with the number of the line wherever something is wrong."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from enrollment.errors import EnrollmentError
from models import removal
from models.catalog import (
    BadRow,
    CatalogError,
    Counts,
    NewCourse,
    NewStudent,
    absent,
    upsert_courses,
    upsert_students,
)

Row = TypeVar("Row", NewStudent, NewCourse)


class NotLoaded(EnrollmentError):
    """A file cannot be loaded. Nothing was."""

    def __init__(self, path: Path, error: CatalogError) -> None:
        super().__init__(f"{path}: {error}")


class NothingToKeep(EnrollmentError):
    """A full load of a file without rows would remove everything."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} has no rows, so a full load would remove everything; is it the right file?")


def load(
    connection: Connection,
    *,
    students: Path | None = None,
    courses: Path | None = None,
    full: bool = False,
    by: str = "catalog/load",
) -> dict[str, Counts]:
    """Load either file or both; return what became of the rows, by table.

    `full`: who is not in its file goes, and the audit names `by`.

    Raises NotLoaded, NothingToKeep and StillEnrolled: then roll back.
    """
    done: dict[str, Counts] = {}
    if students is not None:
        with _rows_of(students, NewStudent) as rows:
            done["students"] = upsert_students(connection, rows, first_line=2)
        if full:
            _remove_absent(connection, "students", students, done["students"], by)
    if courses is not None:
        with _rows_of(courses, NewCourse) as more:
            done["courses"] = upsert_courses(connection, more, first_line=2)
        if full:
            _remove_absent(connection, "courses", courses, done["courses"], by)
    return done


def _remove_absent(connection: Connection, table: removal.Table, path: Path, counts: Counts, by: str) -> None:
    if not sum(counts):
        raise NothingToKeep(path)
    removal.remove_ids(connection, table, absent(connection, table), by=by)


@contextmanager
def _rows_of(path: Path, row: type[Row]) -> Iterator[Iterator[Row]]:
    """Give the rows of a file whose first line names the columns. Raises NotLoaded, for what loads them as well."""
    # What is not UTF-8 comes through as lone surrogates, which the loading refuses with the line it is on.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        try:
            yield _rows(lines, row)
        except CatalogError as error:
            raise NotLoaded(path, error) from None


def _rows(lines: Iterable[str], row: type[Row]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    try:
        columns = _columns(next(reader, []), row._fields)
        empty: int | None = None
        for line, values in enumerate(reader, 2):
            if reader.line_num != line:
                raise BadRow(line, "a value has a line break in it")
            if not values:
                empty = empty or line
                continue
            if empty is not None:  # at the end of the file they do no harm
                raise BadRow(empty, "it is empty")
            if len(values) != len(columns):
                raise BadRow(line, f"it has {len(values)} values, and the first line has {len(columns)}")
            yield _row(line, dict(zip(columns, values, strict=True)), row)
    except csv.Error as error:
        raise BadRow(reader.line_num, f"it is not CSV ({error})") from None


def _columns(header: list[str], known: tuple[str, ...]) -> list[str]:
    columns = [name.strip() for name in header]
    for name in columns:
        if name not in known or columns.count(name) > 1:
            raise BadRow(1, f"it must name columns, each once, of {', '.join(known)}, and has {name!r}")
    if "id" not in columns and "sis_id" not in columns:
        raise BadRow(1, "it must name the columns, and id or sis_id among them")
    return columns


def _row(line: int, values: dict[str, str], row: type[Row]) -> Row:
    id_ = values.pop("id", "").strip()
    if id_ and not (id_.isascii() and id_.isdigit()):
        raise BadRow(line, f"the id {id_!r} is not an integer")
    return row(id=int(id_) if id_ else None, **values)
