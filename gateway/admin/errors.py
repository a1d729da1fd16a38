"""What keeps a page from being shown, as a person reads it."""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from gateway.exception_handlers import problem_of


class PageError(Exception):
    """A request that cannot be done, told as a page."""

    def __init__(self, status: int, title: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.message = message
        self.headers = dict(headers or {})


class LoginNeeded(Exception):
    """Nobody is logged in."""


def page_not_found() -> PageError:
    """There is no such page."""
    return PageError(404, "There is nothing here", "The address is wrong, or what it showed is gone.")


def page_error_of(request: Request, error: Exception) -> PageError:
    """Return what to tell of an error. Raises what nobody foresaw."""
    if isinstance(error, PageError):
        return error
    if isinstance(error, RequestValidationError):
        return page_not_found()
    problem = problem_of(request, error)
    status, what = int(problem.status), problem.detail.partition(". ")[0]
    title, message = problem.code.replace("_", " ").capitalize(), problem.detail
    match problem.code:
        case "not_found":
            return page_not_found()
        case "unavailable":
            again = "Try again in a few seconds; a command that did arrive takes effect once."
            title, message = "Not now", f"{what}. {again}"
        case "too_many_requests":
            message = f"Wait {problem.headers['Retry-After']} s, then load the page again."
        case "content_too_large":
            title, message = "Too much at once", f"{what}. Nothing was changed. Send less of it."
    return PageError(status, title, message, problem.headers)
