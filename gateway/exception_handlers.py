"""From every error to its problem."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from enrollment.client import BrokerAway, InvalidCommand
from enrollment.errors import (
    EnrollmentError,
    ErrorCode,
    UnknownCommand,
    UnknownCourse,
    UnknownDeadLetter,
    UnknownStudent,
)
from gateway.middleware.request_log import is_endless
from gateway.problems import Problem
from models.db_errors import is_outage

_COME_AGAIN: Final = {"Retry-After": "5"}  # seconds
_MAX_NAMED: Final = 10  # faults told in one answer
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
# By pydantic's name of the error, with what it tells about the limit.
_SAID: Final[Mapping[str, str]] = {
    "extra_forbidden": "not known here",
    "greater_than_equal": "less than {ge}",
    "int_parsing_size": "too large",
    "int_type": "not an integer",
    "json_invalid": "not JSON (RFC 8259)",
    "less_than_equal": "more than {le}",
    "missing": "missing",
    "model_attributes_type": "not a JSON object",
    "too_long": "more than {max_length} in a list",
    "too_short": "an empty list",
    "tuple_type": "not a list",
}
_OF_HEADERS: Final[Mapping[str, str]] = {
    "Idempotency-Key": "not 1 to 255 printable ASCII characters",
    "Last-Event-ID": "not the id of an event, such as 1769851800000-0, nor 0 for all that are kept",
}
_UNKNOWN: Final[Mapping[type[EnrollmentError], str]] = {
    UnknownStudent: ErrorCode.UNKNOWN_STUDENT,
    UnknownCourse: ErrorCode.UNKNOWN_COURSES,
    UnknownCommand: "unknown_command",
    UnknownDeadLetter: "unknown_dead_letter",
}


def register(app: FastAPI, tell: Callable[[Request, Exception], Response]) -> None:
    """Let every error be answered as `tell` says: by its problem, or by a page that tells it."""

    async def told(request: Request, error: Exception) -> Response:
        return tell(request, error)

    for kind in (
        Problem,
        EnrollmentError,
        RequestValidationError,
        HTTPException,
        DBAPIError,
        PoolTimeout,
        RedisError,
    ):
        app.add_exception_handler(kind, told)


def problem_of(request: Request, error: Exception) -> Problem:
    """Return the problem that an error is told as. Raises what nobody foresaw."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(request, error.errors())
        case HTTPException():
            return _of_http(request, error)
        case EnrollmentError():
            return _of_ours(error)
    return _of_servers(error)


def _of_ours(error: EnrollmentError) -> Problem:
    match error:
        case UnknownStudent(student_id=id_) | UnknownCourse(course_id=id_):
            return Problem(404, _UNKNOWN[type(error)], str(error), ids=[id_])
        case UnknownCommand() | UnknownDeadLetter():
            return Problem(404, _UNKNOWN[type(error)], str(error))
        case InvalidCommand():
            return Problem(422, ErrorCode.INVALID_COMMAND, str(error), fields=error.fields)
        case BrokerAway():
            ids = {"command_ids": list(map(str, error.command_ids))}
            return _unavailable("The broker did not take the command; it may have it all the same.", more=ids)
    raise error


def _of_servers(error: Exception) -> Problem:
    if isinstance(error, RedisError):
        return _unavailable("The event stream did not answer.")
    if is_outage(error):
        return _unavailable("The database did not answer.")
    raise error


def _unavailable(what: str, more: Mapping[str, Any] | None = None) -> Problem:
    return Problem(
        503,
        "unavailable",
        f"{what} Send the request again in a few seconds; with the same Idempotency-Key it takes effect once.",
        headers=_COME_AGAIN,
        more=more,
    )


def _of_http(request: Request, error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    if error.status_code == 404:  # noqa: PLR2004 - the number is the name
        return Problem(404, "not_found", "There is nothing at this address; /openapi.json lists what there is.")
    if error.status_code == 405:  # noqa: PLR2004 - as above
        allowed = ", ".join(_allowed(request))
        headers["Allow"] = allowed
        return Problem(405, "method_not_allowed", f"This address takes {allowed}.", headers=headers)
    if isinstance(error.__cause__, Problem):
        return error.__cause__
    if error.status_code == 400:  # noqa: PLR2004 - as above
        return Problem(400, "bad_request", "The request cannot be read; its body must be JSON (RFC 8259).")
    return Problem(error.status_code, "error", str(error.detail), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods that this address takes, of all its routes."""
    path = request.url.path
    described = request.app.openapi()["paths"].get(path)  # `/students/enroll` is nobody's id
    allowed = [
        method
        for method in _METHODS
        if (described is None or method.lower() in described)
        and any(r.matches({**request.scope, "method": method})[0] is Match.FULL for r in request.app.routes)
    ]
    return ["GET", "HEAD", *allowed[1:]] if allowed[:1] == ["GET"] and not is_endless(path) else allowed


def _invalid(request: Request, errors: Sequence[Any]) -> Problem:
    faults: dict[str, str] = {}
    for error in errors:
        where, *path = error["loc"]
        if error["type"] == "json_invalid":
            path = []
        field = str(path[0])[:64] if path else str(where)
        inside = "".join(f".{str(step)[:64]}" for step in path[1:])
        faults.setdefault(field, f"{field}{inside}: {_said(error)}")
    named = list(faults.values())[:_MAX_NAMED]
    if len(faults) > _MAX_NAMED:
        named.append(f"and {len(faults) - _MAX_NAMED} more")
    reading = request.method in ("GET", "HEAD")
    return Problem(
        422,
        "invalid_request" if reading else ErrorCode.INVALID_COMMAND,
        f"{'; '.join(named)}. Correct {'it' if len(faults) == 1 else 'them'} and send the request again.",
        fields=list(faults)[:_MAX_NAMED],
    )


def _said(error: Mapping[str, Any]) -> str:
    if error["type"] in _SAID:
        return _SAID[error["type"]].format(**error.get("ctx", {}))
    if error["loc"][-1] in _OF_HEADERS:
        return _OF_HEADERS[error["loc"][-1]]
    return str(error["msg"]).removeprefix("Value error, ").rstrip(".")
