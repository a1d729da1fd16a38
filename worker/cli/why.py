"""What `enrollment why` answers: the paragraph about a student and a course."""

from typing import Any

import typer

from models import import_rows, queries
from tasks.imports.formats.rows import FileError
from tasks.imports.why import paragraph, waits
from worker.cli.connect import database


def why(student: str, course: str) -> str:
    """Return the paragraph about a pair; of one that is not in the catalog, what waits for it. Raises FileError."""
    with database() as connection:
        students, courses = queries.students_by_sis_id, queries.courses_by_sis_id
        try:
            person = _found(connection, student, students, queries.student, "student")
            place = _found(connection, course, courses, queries.course, "course")
        except FileError as error:
            named = _sis_id(connection, student, queries.student), _sis_id(connection, course, queries.course)
            waiting = import_rows.waiting(connection, *named) if all(named) else []
            if not waiting:
                raise
            return " ".join([str(error), *map(waits, waiting)])
        return paragraph(
            person,
            place,
            queries.history(connection, person.id, place.id),
            import_rows.rows_of(connection, person.id, place.id),
            import_rows.waiting(connection, person.sis_id, place.sis_id) if place.sis_id else (),
            is_enrolled=queries.is_enrolled(connection, person.id, place.id),
        )


def _found(connection: Any, said: str, by_sis_id: Any, by_id: Any, what: str) -> Any:
    if said.startswith("sis:"):
        found = by_sis_id(connection, [said[4:]]).get(said[4:])
        if found is None:
            raise FileError(f"There is no {what} with the SIS id {said[4:]}.")
        return found
    if not (said.isascii() and said.isdecimal()):
        raise typer.BadParameter(f"{said!r} is no id; say sis:{said} for that of the student information system")
    return by_id(connection, int(said))


def _sis_id(connection: Any, said: str, by_id: Any) -> str | None:
    if said.startswith("sis:"):
        return said[4:]
    return by_id(connection, int(said)).sis_id if said.isascii() and said.isdecimal() else None
