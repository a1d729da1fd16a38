"""What keeps a page from being shown, as a person reads it."""

from collections.abc import Mapping
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from gateway.handlers import problem_of

_UNAVAILABLE: Final = 503


class Trouble(Exception):
    """A request that cannot be done, told as a page."""

    def __init__(self, status: int, title: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.message = message
        self.headers = dict(headers or {})


class LoginNeeded(Exception):
    """Nobody is logged in."""


def nothing_here() -> Trouble:
    """There is no such page."""
    return Trouble(404, "There is nothing here", "The address is wrong, or what it showed is gone.")


def trouble_of(request: Request, error: Exception) -> Trouble:
    """Return what to tell of an error. Raises what nobody foresaw."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, RequestValidationError):
        return nothing_here()
    problem = problem_of(request, error)
    if problem.status == _UNAVAILABLE:
        what = problem.detail.partition(". ")[0]
        again = "Try again in a few seconds; a command that did arrive takes effect once."
        return Trouble(_UNAVAILABLE, "Not now", f"{what}. {again}", problem.headers)
    if problem.code == "not_found":
        return nothing_here()
    title = problem.code.replace("_", " ").capitalize()
    return Trouble(int(problem.status), title, problem.detail, problem.headers)
