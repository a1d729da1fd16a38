"""Lookups of courses."""

from fastapi import APIRouter, Request, Response

from gateway.dependencies import Read
from gateway.openapi import LOOKUP, PAGES
from gateway.schemas.parameters import PAGE, After, CourseId, IfNoneMatch, Limit
from gateway.schemas.responses import Course, CoursePage, Student, StudentPage, lookup, next_page
from models import queries

router = APIRouter(tags=["courses"])


@router.get("/courses", response_model=CoursePage, responses=PAGES)
async def list_courses(
    request: Request, read: Read, after: After = None, limit: Limit = PAGE, _: IfNoneMatch = None
) -> Response:
    """All courses, page by page, in order of id."""
    page = await read.lookup(queries.courses, after=after, limit=limit)
    content = CoursePage.model_construct(items=list(map(Course.of, page.items)), after=page.after)
    return lookup(request, content, next_page(request, page.after))


@router.get("/courses/{course_id}/students", response_model=StudentPage, responses=LOOKUP)
async def list_students_in_course(
    request: Request,
    read: Read,
    course_id: CourseId,
    after: After = None,
    limit: Limit = PAGE,
    _: IfNoneMatch = None,
) -> Response:
    """The students enrolled in a course, page by page, in order of id."""
    page = await read.lookup(queries.students_in, course_id, after=after, limit=limit)
    content = StudentPage.model_construct(items=list(map(Student.of, page.items)), after=page.after)
    return lookup(request, content, next_page(request, page.after))
