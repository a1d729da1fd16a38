"""What is to be imported as a list of CSV files: one file, a folder, or a zip; read line by line, never held."""

import hashlib
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self, cast

from tasks.imports.formats import FORMATS, detect, unknown
from tasks.imports.formats.oneroster import modes
from tasks.imports.formats.rows import FileError, Format, Sheet

_BLOCK: Final = 1 << 20  # bytes read at once
_LONGEST: Final = 1 << 20  # characters of a line; a file that is none of ours may have no line's end at all
_STEP: Final = 1000  # lines between two looks at how far it has got
_KNOWN: Final = ("users", "courses", "sections", "xlists", "enrollments", "classes", "roles", "manifest")
# A file whose name has such a word anywhere is not left out because its header is broken. Canvas's abstract courses,
# enrollment terms and all other files of the two formats are none of ours.
_IN_NAME: Final = re.compile(r"users|(?<!abstract.)courses|sections|xlist|enroll?ment(?!.?term)|classes|roles|manifest")
_DAMAGED: Final = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError)


@dataclass(frozen=True, slots=True)
class File:
    """One CSV file, and how to open it again."""

    name: str
    size: int
    open: Callable[[], BinaryIO]

    def lines(self, tell: Callable[[int], None] = lambda _: None) -> Generator[str]:
        """Give the lines as text; `tell` gets the number of bytes read, now and then. Raises FileError.

        Close it where it is not read to its end.
        """
        with self.opened() as raw:
            try:
                yield from _told(self.name, raw, tell)
            except UnicodeDecodeError:
                raise self._not_utf8() from None

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open it. Raises FileError, also in the block, where it cannot be taken out of its zip."""
        try:
            with self.open() as raw:
                yield raw
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            raise FileError(f"{self.name} cannot be read ({error}); copy it again, or pack the zip anew.") from None

    def _not_utf8(self) -> FileError:
        with self.opened() as raw:
            for number, line in enumerate(iter(partial(raw.readline, 4 * _LONGEST), b""), 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    what = f"the byte 0x{line[error.start]:02x} at position {error.start + 1} of the line is not UTF-8"
                    return FileError(f"{self.name}, line {number}: {what}; export the file as UTF-8.")
        return FileError(f"{self.name}: it was changed while it was read.")


def _told(name: str, raw: BinaryIO, tell: Callable[[int], None]) -> Generator[str]:
    done = 0
    with io.TextIOWrapper(raw, "utf-8-sig", newline="") as lines:
        for number, line in enumerate(iter(partial(lines.readline, _LONGEST), ""), 1):
            done += len(line)
            if len(line) == _LONGEST:
                raise FileError(f"{name}, line {number} is longer than {_LONGEST:,} characters: this is no CSV file.")
            if number % _STEP == 0:
                tell(done)
            yield line
    tell(done)


@dataclass(frozen=True, slots=True)
class Parts:
    """The files of an import: those of one format, each with the part of it that it is."""

    format: Format
    files: tuple[tuple[File, str], ...]
    modes: dict[str, str]  # what a manifest says
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, files: list[File], insisted: Format | None) -> Self:
        """Find out the format and the parts. Raises FileError."""
        among = FORMATS if insisted is None else (insisted,)
        found: list[tuple[File, Format, str]] = []
        said: dict[str, str] = {}
        left_out: list[str] = []
        for file in files:
            with closing(file.lines()) as lines:
                sheet = Sheet(file.name, lines)
                if sheet.header[:1] and sheet.header[0].lower().startswith("sep="):
                    raise FileError(f"{file.name}, line 1: sep= is there for Excel only; delete this line.")
                known = detect(sheet, among=among)
                if known is None and (len(files) == 1 or _is_known(file.name)):
                    raise unknown(sheet, among, alone=len(files) == 1)
                if known is None:
                    left_out.append(file.name)
                elif Path(file.name).stem.lower() in {*_KNOWN} - {known[1]}:
                    what = f"{sheet.describe()}, which are the columns of {known[1]}.csv"
                    raise FileError(f"{file.name}, line 1: {what}; correct the header, or the name of the file.")
                elif known[1] == "manifest":
                    said = modes(sheet)
                else:
                    found.append((file, *known))
        _see_all(said, {part for _, _, part in found})
        if not found:
            raise FileError(f"None of {', '.join(f.name for f in files) or 'no file'} is a file that can be imported.")
        format_ = found[0][1]
        other = next((file for file, another, _ in found if another is not format_), None)
        if other is not None:
            raise FileError(f"{found[0][0].name} is of another format than {other.name}; import them one by one.")
        absent = [file.name for file, _, part in found if said.get(part) == "absent"]
        parts = tuple((file, part) for file, _, part in found if file.name not in absent)
        return cls(format_, parts, said, (*left_out, *absent))

    @property
    def size(self) -> int:
        """How many bytes there are to read."""
        return sum(file.size for file, _ in self.files)

    def digest(self) -> str:
        """Return what identifies the content: the same for a folder and its zip."""
        whole = hashlib.sha256()
        for file, part in sorted(self.files, key=lambda item: item[0].name):
            whole.update(f"{file.name}\0{part}\0{self.modes.get(part, '')}\0{file.size}\0".encode())
            with file.opened() as raw:
                while block := raw.read(_BLOCK):
                    whole.update(block)
        return whole.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[tuple[list[File], datetime]]:
    """Give the files that are at a path, and when the newest was changed. Raises FileError."""
    with ExitStack() as stack:
        if path.is_dir():
            there = sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
            _see_no_other([readable(item.name) for item in there])
            found = [item for item in there if _is_csv(item.name)]
            files = [_on_disk(item) for item in found]
            newest = max((item.stat().st_mtime for item in found), default=path.stat().st_mtime)
        elif zipfile.is_zipfile(path):
            try:
                archive = stack.enter_context(zipfile.ZipFile(path))
            except (*_DAMAGED, ValueError):
                raise _no_zip(path) from None
            files, newest = _in_zip(archive), path.stat().st_mtime
        elif _is_workbook(path):
            files, newest = [], path.stat().st_mtime
        elif path.suffix.lower() == ".zip":
            raise _no_zip(path)
        else:
            files, newest = [_on_disk(path)], path.stat().st_mtime
        if not files:
            hint = " It is a workbook of a spreadsheet: export each sheet of it as CSV." if _is_workbook(path) else ""
            raise FileError(f"There is no CSV file in {readable(path.name)}.{hint}")
        yield files, datetime.fromtimestamp(newest, UTC)


def readable(name: str) -> str:
    """Return the name of a file as text, whatever bytes it has."""
    return os.fsencode(name).decode(errors="replace")


def _no_zip(path: Path) -> FileError:
    return FileError(f"{readable(path.name)} is not a zip file, or only a part of one; copy it again.")


def _is_workbook(path: Path) -> bool:
    return path.suffix.lower() in (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


def _is_known(name: str) -> bool:
    return _IN_NAME.search(Path(name).stem.lower()) is not None


def _see_all(said: dict[str, str], parts: set[str]) -> None:
    """See that each part is there which a manifest calls `bulk` or `delta`. Raises FileError."""
    needed = (part for part, mode in said.items() if mode != "absent" and part != "courses")  # that is often not read
    part = next((part for part in needed if part not in parts), None)
    if part is not None:
        what = f"The manifest says file.{part},{said[part]}, and there is no {part}.csv"
        raise FileError(f"{what}; export the files again, or call it absent in the manifest.")


def _see_no_other(names: list[str]) -> None:
    """See that none of the files that we read is there as something else only, or half. Raises FileError."""
    stems = [name.partition(".")[0].lower() for name in names]
    wanted = {*_KNOWN} - {"manifest"} - {stem for stem, name in zip(stems, names, strict=True) if _is_csv(name)}
    lost = next((name for stem, name in zip(stems, names, strict=True) if stem in wanted), None)
    if lost is not None:
        raise FileError(f"{lost} is no CSV file, and nothing of it would be read; export it as CSV, or take it out.")


def _on_disk(path: Path) -> File:
    return File(readable(path.name), path.stat().st_size, lambda: path.open("rb"))


def _in_zip(archive: zipfile.ZipFile) -> list[File]:
    there = [
        item
        for item in archive.infolist()
        if not item.is_dir() and not any(p.startswith((".", "__MACOSX")) for p in Path(item.filename).parts)
    ]
    _see_no_other([Path(item.filename).name for item in there])
    found = [item for item in there if _is_csv(item.filename)]
    names = Counter(Path(item.filename).name for item in found)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise FileError(f"The zip has {twice} twice, in different folders; import them one by one.")

    def opener(item: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
        return lambda: cast(BinaryIO, archive.open(item))

    return sorted(
        (File(Path(item.filename).name, item.file_size, opener(item)) for item in found), key=lambda f: f.name
    )
