"""The writes: each sends commands, and waits for what comes of them."""

from fastapi import APIRouter, HTTPException, Request, Response

from enrollment.commands import Kind
from gateway.openapi import WRITE
from gateway.schemas.parameters import CourseId, IdempotencyKey, StudentId
from gateway.schemas.requests import AllCourses, BodyRoute, Courses, Difference, StudentAndCourses, When
from gateway.schemas.responses import Written
from gateway.submission import Change
from gateway.write_response import submit

router = APIRouter(tags=["enrollments"], route_class=BodyRoute)


def _change(kind: Kind, student_id: int, course_ids: tuple[int, ...], when: When) -> Change:
    return Change(kind, student_id, course_ids, when.effective_at, when.wait_until)


@router.post("/students/enroll", response_model=Written, responses=WRITE)
async def enroll_student(request: Request, body: StudentAndCourses, key: IdempotencyKey = None) -> Response:
    """Enroll a student, named in the body, in courses."""
    return await submit(request, key)(_change(Kind.ENROLL, body.student_id, body.ids, body))


@router.get("/students/enroll", include_in_schema=False)
async def _not_a_student(_request: Request) -> Response:
    """Keep `enroll` from being taken for a student's id."""
    raise HTTPException(405)


@router.post("/students/{student_id}/courses", response_model=Written, responses=WRITE)
async def enroll(request: Request, student_id: StudentId, body: Courses, key: IdempotencyKey = None) -> Response:
    """Enroll a student in courses."""
    return await submit(request, key)(_change(Kind.ENROLL, student_id, body.ids, body))


@router.put("/students/{student_id}/courses", response_model=Written, responses=WRITE)
async def replace(request: Request, student_id: StudentId, body: AllCourses, key: IdempotencyKey = None) -> Response:
    """Make the student's courses exactly these; an empty list means none."""
    return await submit(request, key)(_change(Kind.REPLACE, student_id, body.course_ids, body))


@router.patch("/students/{student_id}/courses", response_model=Written, responses=WRITE)
async def change(request: Request, student_id: StudentId, body: Difference, key: IdempotencyKey = None) -> Response:
    """Enroll a student in some courses, and unenroll them from others: two commands, sent in one message.

    Where one of the two is rejected, the other stands; the problem names both.
    """
    changes = [(Kind.ENROLL, body.add), (Kind.UNENROLL, body.remove)]
    return await submit(request, key)(
        *(_change(kind, student_id, courses, body) for kind, courses in changes if courses)
    )


@router.delete("/students/{student_id}/courses/{course_id}", response_model=Written, responses=WRITE)
async def unenroll(
    request: Request, student_id: StudentId, course_id: CourseId, body: When | None = None, key: IdempotencyKey = None
) -> Response:
    """Unenroll a student from a course."""
    return await submit(request, key)(_change(Kind.UNENROLL, student_id, (course_id,), body or When()))
