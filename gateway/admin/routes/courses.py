"""Courses and their rosters."""

from fastapi import Request
from starlette.responses import Response

from gateway.admin.pages import PAGE, After, SearchText, links, page_router, render
from gateway.dependencies import Held
from models import queries
from models.queries import search

router = page_router()


@router.get("/courses")
async def find(request: Request, gateway: Held, q: SearchText = "", after: After = None) -> Response:
    """Find courses; all of them where nothing is said."""
    if q.strip():
        page = await gateway.read.lookup(search.find_courses, q, after=after, limit=PAGE)
    else:
        page = await gateway.read.lookup(queries.courses, after=after, limit=PAGE)
    first, following = links(request, after, page.after, q=q)
    return render(request, "courses.html", q=q, page=page, first=first, next=following)


@router.get("/courses/{course_id}")
async def show(request: Request, gateway: Held, course_id: int, after: After = None) -> Response:
    """Show who is enrolled in a course."""
    course = await gateway.read.lookup(queries.course, course_id)
    page = await gateway.read.lookup(queries.students_in, course_id, after=after, limit=PAGE)
    first, following = links(request, after, page.after)
    return render(request, "course.html", course=course, page=page, after=after, first=first, next=following)
