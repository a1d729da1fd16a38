"""Lookups of students."""

from fastapi import APIRouter, Request, Response

from gateway.dependencies import held_by
from gateway.openapi import LOOKUP, PAGES
from gateway.schemas.parameters import PAGE, After, Limit, StudentId
from gateway.schemas.responses import CoursesOf, StudentCourses, StudentCoursesPage, lookup, next_page
from models import queries

router = APIRouter(tags=["students"])


@router.get("/students", response_model=StudentCoursesPage, responses=PAGES)
async def list_students(request: Request, after: After = None, limit: Limit = PAGE) -> Response:
    """All students with their courses, page by page, in order of id."""
    page = await held_by(request).read.lookup(queries.students_with_courses, after=after, limit=limit)
    content = StudentCoursesPage.model_construct(items=list(map(StudentCourses.of, page.items)), after=page.after)
    return lookup(request, content, next_page(request, page.after))


@router.get("/students/{student_id}", response_model=StudentCourses, responses=LOOKUP)
async def get_student(request: Request, student_id: StudentId) -> Response:
    """A student with their courses."""
    student = await held_by(request).read.lookup(queries.student, student_id)
    courses = await held_by(request).read.courses_of(student_id)
    return lookup(request, StudentCourses.of(queries.StudentWithCourses(student, tuple(courses))))


@router.get("/students/{student_id}/courses", response_model=CoursesOf, responses=LOOKUP)
async def get_courses_of_student(request: Request, student_id: StudentId) -> Response:
    """The courses a student is enrolled in."""
    courses = await held_by(request).read.courses_of(student_id)
    return lookup(request, CoursesOf.model_validate({"student_id": student_id, "courses": courses}))
