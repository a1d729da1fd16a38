"""What every format becomes: rows that ask for something, and entries of the catalog. Pure."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from string import whitespace
from typing import Final, Literal, NamedTuple, Protocol

from enrollment.errors import EnrollmentError

Action = Literal["enroll", "unenroll"]
CROSS_LISTED: Final = "cross-listed"  # the `code` of a section whose course counts whatever a row says
_SHOWN: Final = 12  # columns of a header that a message names
_CUT: Final = 40  # characters of a value that a message repeats
_BOM: Final = "\N{BYTE ORDER MARK}"
_FIELD: Final = 1_000_000  # characters of one value; what is longer has lost its closing quote

csv.field_size_limit(_FIELD)


class FileError(EnrollmentError):
    """A file cannot be read as a whole. Nothing was done."""


class EnrollmentRow(NamedTuple):
    """One row about an enrollment. Where `code` is set nothing is asked for: the row is rejected, or `ignored`."""

    line: int
    student: str = ""
    course: str = ""  # empty: the course of the section
    section: str = ""
    action: Action | None = None
    issued_at: datetime | None = None  # None: the time of the whole import
    effective_at: datetime | None = None  # when it is to take effect; None: at once
    by_alias: bool = False  # `student` is the other id that the catalog file has for them
    own_key: str = ""  # tells apart the enrollments that a system has of one student in one section
    code: str | None = None
    message: str | None = None
    ignored: bool = False


class CatalogRow(NamedTuple):
    """One row for the catalog, or of what links it: the course of a section, a student's role, the ids of another user.

    An `other` user who has a student's enrollment is a student, too; not one whose `code` says why not. Nobody is
    enrolled in what is `gone`.
    """

    line: int
    kind: Literal["student", "course", "section", "role", "other", "gone_course", "gone_section"]
    sis_id: str
    alias: str | None = None
    parent: str | None = None
    code: str | None = None
    title: str | None = None  # of a course; the name of a student


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read, where a format leaves a choice."""

    today: date
    statuses: dict[str, str] = field(default_factory=dict)  # status: enroll, unenroll or ignore
    course_is: Literal["class", "course"] = "class"
    by: Literal["id", "sis_id"] = "sis_id"
    modes: dict[str, str] = field(default_factory=dict)  # of OneRoster's files, by part: bulk, delta, absent
    issued_at: datetime | None = None  # of rows that have no time of their own
    other_roles: frozenset[str] = frozenset()  # of a school's own, lower case: whoever has one is no student


class Sheet:
    """One CSV file: its columns by name, and its records with the line that each begins on."""

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        """Read the header. Raises FileError."""
        self.name = name
        self._last_line = ""
        self._has_nul = False  # among the lines since it was last looked at
        self._reader = csv.reader(map(self._seen, lines), strict=True)
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise FileError(f"{name}, line 1: this is not CSV ({error}).") from None
        if self._reader.line_num > 1:
            last = self._reader.line_num
            raise FileError(f"{name}, line 1: the header goes on up to line {last}; see whether a quote is missing.")
        if self._has_nul:
            raise FileError(f"{name}, line 1: it has NUL bytes, as a file of another encoding has; export it as UTF-8.")
        self.header = [column.strip(f"{_BOM}{whitespace}") for column in header]
        while self.header and not self.header[-1]:  # spreadsheets leave commas behind
            del self.header[-1]
        self.columns = {column.casefold(): index for index, column in enumerate(self.header) if column}
        twice = next((c for i, c in enumerate(self.header) if c and self.columns[c.casefold()] != i), None)
        if twice is not None:
            raise FileError(f"{name}, line 1: the column {short(twice)} is there twice; leave one of them.")
        self._read_up_to = 0  # how many values a record needs at least

    def column(self, name: str) -> int:
        """Return where a record has this column; of a column that is not there each record has an empty value."""
        index = self.columns.get(name.casefold())
        if index is None:
            return len(self.header)
        self._read_up_to = max(self._read_up_to, index + 1)
        return index

    def describe(self) -> str:
        """Return the header for a message."""
        if len(self.header) == 1 and (mark := next((m for m in ";\t|" if m in self.header[0]), None)):
            return f"it is separated by {mark!r}, and must be by commas"
        shown = ", ".join(repr(column[:_CUT])[1:-1] for column in self.header[:_SHOWN])
        return f"it has {shown}{'…' if len(self.header) > _SHOWN else ''}" if shown else "it is empty"

    def records(self) -> Iterator[tuple[int, list[str]] | EnrollmentRow]:
        """Give each record with its first line and one empty value more than it has; a bad one as a rejected row."""
        reader, width = self._reader, len(self.header)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                up_to = f", up to line {reader.line_num}" if reader.line_num > line else ""
                self._has_nul = False
                yield rejected(line, "not_csv", f"This is not CSV{up_to} ({error}); see whether a quote is missing.")
                continue
            if self._has_nul or (reader.line_num > line and self._swallows(values)):
                yield self._damaged(line, reader.line_num)
            elif not any(map(str.strip, values)):
                continue
            elif len(values) == width:
                values.append("")
                yield line, values
            else:
                yield self._fitted(line, values)

    def _fitted(self, line: int, values: list[str]) -> tuple[int, list[str]] | EnrollmentRow:
        """Return a record of another length than the header: right if only what nobody reads, or nothing, is amiss."""
        width = len(self.header)
        if len(values) < width and not self._last_line.endswith(("\n", "\r")):
            return rejected(line, "wrong_columns", "The file ends in the middle of this line; copy it again.")
        if len(values) < self._read_up_to or any(map(str.strip, values[width:])):
            what = f"The line has {len(values)} values, and the header has {width} columns"
            return rejected(line, "wrong_columns", f"{what}; put quotes around a value with a comma in it.")
        return line, [*values[:width], *[""] * (width - len(values)), ""]

    def _swallows(self, values: list[str]) -> bool:
        """Tell whether a value has whole lines in it, so that a quote is missing before and another one after them."""
        commas = max(len(self.header) - 1, 1)
        return any(
            breaks and value.count(",") >= breaks * commas
            for value in values
            for breaks in (value.count("\n") or value.count("\r"),)
        )

    def _damaged(self, line: int, last: int) -> EnrollmentRow:
        if self._has_nul:
            self._has_nul = False
            return rejected(
                line, "not_csv", "The line has a NUL byte, which no text has; copy or export the file again."
            )
        what = f"A value in quotes goes on up to line {last} and has whole lines in it"
        return rejected(line, "not_csv", f"{what}; see whether a quote is missing.")

    def _seen(self, line: str) -> str:
        self._last_line = line
        if "\0" in line:
            self._has_nul = True
        return line


class Format(Protocol):
    """What a module of a format offers."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """How it is called."""

    @property
    def EXPECTED(self) -> str:  # noqa: N802 - as above
        """The columns of its files, for a message."""

    def part_of(self, columns: frozenset[str]) -> str | None:
        """Tell which of the format's files has these columns (casefolded); None where none has."""

    def read(self, sheet: Sheet, part: str, reading: Reading) -> Iterator[EnrollmentRow | CatalogRow]:
        """Give the rows of a file, lazily."""


def short(text: str) -> str:
    """Return a text as a message repeats it: in quotes, and cut."""
    return repr(text if len(text) <= _CUT else f"{text[:_CUT]}…")


def rejected(
    line: int, code: str, message: str, *, student: str = "", course: str = "", section: str = ""
) -> EnrollmentRow:
    """Return a row that cannot be done, with the reason."""
    return EnrollmentRow(line, student, course, section, code=code, message=message)


def unknown_role(line: int, role: str, *, student: str, course: str = "", section: str = "") -> EnrollmentRow:
    """Return a row whose role may be a misspelt `student`."""
    hint = "correct it, or name it with --other-role if it is a school's own and no student's"
    message = f"The role {short(role)} is not known; {hint}."
    return rejected(line, "unknown_role", message, student=student, course=course, section=section)


def ignored(
    line: int, code: str, message: str, *, student: str = "", course: str = "", section: str = ""
) -> EnrollmentRow:
    """Return a row that is right and none of our business."""
    return EnrollmentRow(line, student, course, section, code=code, message=message, ignored=True)
