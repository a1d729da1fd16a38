"""Files to measure imports with: OULAD's tables turned into Canvas and OneRoster CSV, and made-up ones of any size.

    python -m benchmarks.imports oulad FOLDER TARGET     # TARGET/canvas, TARGET/oneroster
    python -m benchmarks.imports made 5000000 TARGET     # TARGET/users.csv, courses.csv, enrollments.csv of Canvas

OULAD counts days from the start of a presentation: 1 February for B, 1 October for J. A row without a day of
registration is registered on the first day. Who unregistered is `deleted`, or has an `endDate`.
"""

import csv
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

_STARTS: Final = {"B": (2, 1), "J": (10, 1)}
_COURSES: Final = 5_000
_EACH: Final = 10  # courses of a student


class Registration(NamedTuple):
    """One student in one presentation of a module."""

    student: str
    course: str
    begin: date
    end: date | None


def oulad(folder: Path, target: Path) -> None:
    """Write both formats."""
    with (folder / "courses.csv").open(newline="") as lines:
        courses = [(f"{r['code_module']}-{r['code_presentation']}", r["code_module"]) for r in csv.DictReader(lines)]
    with (folder / "studentRegistration.csv").open(newline="") as lines:
        found = [_registration(row) for row in csv.DictReader(lines)]
    students = sorted({it.student for it in found})
    _canvas(target / "canvas", students, courses, found)
    _oneroster(target / "oneroster", students, courses, found)


def made(rows: int, target: Path) -> None:
    """Write a Canvas export with so many enrollments."""
    pick = random.Random(1)  # noqa: S311 - the same file each time
    with _sheet(target / "users.csv", "user_id", "login_id", "full_name", "status") as write:
        for n in range(rows // _EACH):
            write.writerow((f"u{n:07}", f"l{n}", f"Student {n}", "active"))
    with _sheet(target / "courses.csv", "course_id", "short_name", "long_name", "status") as write:
        for n in range(_COURSES):
            write.writerow((f"c{n:05}", f"C{n}", f"Course {n}", "active"))
    with _sheet(target / "enrollments.csv", "course_id", "user_id", "role", "section_id", "status") as write:
        for n in range(rows // _EACH):
            for course in pick.sample(range(_COURSES), _EACH):
                write.writerow((f"c{course:05}", f"u{n:07}", "student", "", "active"))


def _registration(row: dict[str, str]) -> Registration:
    presentation = row["code_presentation"]
    start = date(int(presentation[:4]), *_STARTS[presentation[4]])
    begin = start + timedelta(int(row["date_registration"] or 0))
    end = start + timedelta(int(row["date_unregistration"])) if row["date_unregistration"] else None
    return Registration(row["id_student"], f"{row['code_module']}-{presentation}", begin, end)


def _canvas(target: Path, students: list[str], courses: list[tuple[str, str]], found: list[Registration]) -> None:
    with _sheet(target / "users.csv", "user_id", "login_id", "full_name", "status") as write:
        write.writerows((it, f"login{it}", f"Student {it}", "active") for it in students)
    with _sheet(target / "courses.csv", "course_id", "short_name", "long_name", "status") as write:
        write.writerows((course, course, module, "active") for course, module in courses)
    with _sheet(target / "enrollments.csv", "course_id", "user_id", "role", "section_id", "status") as write:
        write.writerows(
            (it.course, it.student, "student", "", "deleted" if it.end is not None else "active") for it in found
        )


def _oneroster(target: Path, students: list[str], courses: list[tuple[str, str]], found: list[Registration]) -> None:
    with _sheet(target / "manifest.csv", "propertyName", "value") as write:
        write.writerows((("manifest.version", "1.0"), ("oneroster.version", "1.2"), ("file.enrollments", "bulk")))
    users = ("sourcedId", "status", "dateLastModified", "enabledUser", "username", "givenName", "familyName")
    with _sheet(target / "users.csv", *users) as write:
        write.writerows((it, "", "", "true", f"login{it}", "Student", it) for it in students)
    roles = ("sourcedId", "status", "dateLastModified", "userSourcedId", "roleType", "role", "orgSourcedId")
    with _sheet(target / "roles.csv", *roles) as write:
        write.writerows((f"r{it}", "", "", it, "primary", "student", "ou") for it in students)
    classes = ("sourcedId", "status", "dateLastModified", "title", "courseSourcedId", "classCode", "schoolSourcedId")
    with _sheet(target / "classes.csv", *classes) as write:
        write.writerows((course, "", "", course, module, course, "ou") for course, module in courses)
    names = ("sourcedId", "status", "dateLastModified", "classSourcedId", "schoolSourcedId", "userSourcedId", "role")
    with _sheet(target / "enrollments.csv", *names, "primary", "beginDate", "endDate") as write:
        for number, it in enumerate(found):
            row = (f"e{number}", "", "", it.course, "ou", it.student, "student", "false", it.begin, it.end or "")
            write.writerow(row)


@contextmanager
def _sheet(path: Path, *columns: str) -> Iterator[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        write = csv.writer(lines)
        write.writerow(columns)
        yield write


if __name__ == "__main__":
    what, source, target = sys.argv[1:]
    if what == "oulad":
        oulad(Path(source), Path(target))
    else:
        made(int(source), Path(target))
