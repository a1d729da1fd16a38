"""The pages, a module per subject."""

from fastapi import APIRouter

from gateway.admin.routes import (
    audit,
    commands,
    courses,
    dead_letters,
    events,
    imports,
    login,
    overview,
    students,
    waiting,
)

router = APIRouter(include_in_schema=False)
for module in (login, overview, students, courses, commands, events, waiting, imports, dead_letters, audit):
    router.include_router(module.router)
router.include_router(login.nowhere)  # last: it takes every address
