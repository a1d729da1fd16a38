"""Lookups of courses."""

from fastapi import APIRouter, Request, Response

from gateway.dependencies import held_by
from gateway.openapi import LOOKUP, PAGES
from gateway.schemas.parameters import PAGE, After, CourseId, Limit
from gateway.schemas.responses import CoursePage, StudentPage, lookup, next_page
from models import queries

router = APIRouter(tags=["courses"])


@router.get("/courses", response_model=CoursePage, responses=PAGES)
async def list_courses(request: Request, after: After = None, limit: Limit = PAGE) -> Response:
    """All courses, page by page, in order of id."""
    page = await held_by(request).read.lookup(queries.courses, after=after, limit=limit)
    content = CoursePage.model_validate(page)
    return lookup(request, content, next_page(request, page.after))


@router.get("/courses/{course_id}/students", response_model=StudentPage, responses=LOOKUP)
async def list_students_in_course(
    request: Request,
    course_id: CourseId,
    after: After = None,
    limit: Limit = PAGE,
) -> Response:
    """The students enrolled in a course, page by page, in order of id."""
    page = await held_by(request).read.lookup(queries.students_in, course_id, after=after, limit=limit)
    content = StudentPage.model_validate(page)
    return lookup(request, content, next_page(request, page.after))
