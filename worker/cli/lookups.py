"""The read side: who is enrolled in what, what came of a command, and why a pair is as it is."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from worker.cli.output import Json, as_json, document, fields, note, say, table

if TYPE_CHECKING:
    from enrollment.fold import Record
    from models.queries import HistoryEntry, Page

StudentId = Annotated[int, typer.Argument(metavar="STUDENT", help="The student's id.")]
CourseId = Annotated[int, typer.Argument(metavar="COURSE", help="The course's id.")]
After = Annotated[int | None, typer.Option("--after", metavar="ID", help="Begin after this student.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")]


def courses_of(student: StudentId, json: Json = False) -> None:
    """List the courses a student is enrolled in."""
    from models import queries
    from worker.cli.connect import lookup

    with lookup() as connection:
        courses = queries.courses_of(connection, student)
    if json:
        for course in courses:
            document(as_json(course))
        return
    if not courses:
        note(f"Student {student} is enrolled in no course.")
        return
    table(("id", "SIS id", "code", "title"), courses, folded=("title",))


def students_in(course: CourseId, after: After = None, limit: Limit = 100, json: Json = False) -> None:
    """List the students enrolled in a course."""
    from models import queries
    from worker.cli.connect import lookup

    with lookup() as connection:
        page = queries.students_in(connection, course, after=after, limit=limit)
    if json:
        for student in page.items:
            document(as_json(student))
    elif page.items:
        table(("id", "SIS id", "name"), page.items, folded=("name",))
    else:
        note(f"No student{'' if after is None else ' after that'} is enrolled in course {course}.")
    _tell_of_more(page)


def students(after: After = None, limit: Limit = 100, json: Json = False) -> None:
    """List the students, each with their courses."""
    from models import queries
    from worker.cli.connect import lookup

    with lookup() as connection:
        page = queries.students_with_courses(connection, after=after, limit=limit)
    if json:
        for student, courses in page.items:
            document({**as_json(student), "courses": [as_json(course) for course in courses]})
    elif page.items:
        rows = [(*student, [course.code or course.id for course in courses]) for student, courses in page.items]
        table(("id", "SIS id", "name", "courses"), rows, folded=("name", "courses"))
    else:
        note("There are no students." if after is None else "There are no students after that.")
    _tell_of_more(page)


def command(
    command_id: Annotated[UUID, typer.Argument(metavar="ID", help="The command's id.")], json: Json = False
) -> None:
    """Show what a command asked, and what came of it."""
    from models import queries
    from worker.cli.connect import lookup

    with lookup() as connection:
        record = queries.command(connection, command_id)
    show_record(record, json)


def history(
    student: StudentId,
    course: CourseId,
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=1000, help="How many of the newest.")] = 20,
    json: Json = False,
) -> None:
    """Show why a student is, or is not, enrolled in a course: what was commanded of the pair, by stamp."""
    from enrollment.errors import UnknownCourse, UnknownStudent
    from enrollment.taken import taken_because
    from models import queries
    from worker.cli.connect import lookup

    with lookup() as connection:
        entries = queries.history(connection, student, course, limit=last)
        gone = None
        try:
            enrolled = queries.is_enrolled(connection, student, course)
        except (UnknownStudent, UnknownCourse) as error:  # deleted; what happened to it is still to be told
            enrolled, gone = False, error
    if json:
        for entry in entries:
            taken = taken_because(entry.record)
            document({"effect": entry.effect, "owns": entry.owns, "taken_because": taken, **_data(entry.record)})
        return
    rows = [
        (
            f"{entry.record.issued_at or entry.record.processed_at:%Y-%m-%d %H:%M:%S}",
            taken_because(entry.record) or entry.record.command or "invalid",
            entry.record.command_id,
            f"{'*' if entry.owns else ''}{entry.effect or entry.record.outcome}",
        )
        for entry in entries
    ]
    if rows:
        table(("issued (UTC)", "asked", "command", "effect"), rows)
    say(f"Student {student} is {'' if enrolled else 'not '}enrolled in course {course}: {_reason(entries, enrolled)}.")
    if gone is not None:
        note(str(gone))


def show_record(record: "Record", json: bool) -> None:
    """Print what a command asked, and what came of it."""
    if json:
        document({"outcome": record.outcome, **_data(record)})
        return
    from enrollment.taken import taken_because

    asked = [
        ("command", record.command_id),
        ("asked", record.command),
        ("student", record.student_id),
        ("courses", record.course_ids),
        ("issued", record.issued_at),
        ("source", record.source),
        ("taken because", taken_because(record)),
        ("processed", record.processed_at),
        ("outcome", record.outcome),
        *_waits(record),
    ]
    effects = [(name, ids) for name, ids in record.effects._asdict().items() if ids]
    fields([*asked, *effects, *((f"error {error.code}", error.message) for error in record.errors)])


def _waits(record: "Record") -> list[tuple[str, object]]:
    """Return what a record says of a wait, or of a command that it withdraws."""
    found: list[tuple[str, object]] = [] if record.target is None else [("withdraws", record.target)]
    if record.waiting is not None:
        needs = [f"{need.code} {', '.join(map(str, need.ids))}".strip() for need in record.waiting.waiting_for]
        found += [("waiting for", "; ".join(needs)), ("until", record.waiting.until)]
    return found


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    for name, verb in (
        ("courses-of", courses_of),
        ("students-in", students_in),
        ("students", students),
        ("command", command),
        ("history", history),
    ):
        app.command(name, rich_help_panel="Read")(verb)


def _tell_of_more(page: "Page[Any]") -> None:
    if page.after is not None:
        note(f"There are more: --after {page.after} shows the next.")


def _data(record: "Record") -> dict[str, Any]:
    """Return the record with the fields that its event has."""
    from enrollment.events import event_of

    event = event_of(record)
    return {**event.data.model_dump(mode="json"), "processed_at": event.model_dump(mode="json")["time"]}


def _reason(entries: "list[HistoryEntry]", enrolled: bool) -> str:
    from enrollment.taken import taken_because

    owner = next((entry for entry in entries if entry.owns), None)
    if owner is not None and (because := taken_because(owner.record)):
        return f"{because}, after all that was commanded, as marked *"
    if owner is not None:
        return "so says the newest command for it, marked *"
    return "the row is older than all commands" if enrolled else "no command ever enrolled them"
