"""What OpenAPI says beside what the routes say themselves: problems, headers, access."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.middleware.admission import OPEN, is_admin
from gateway.problems import MEDIA_TYPE, ProblemDetails
from gateway.schemas.responses import Accepted

Responses = dict[int | str, dict[str, Any]]

_ABOUT: Final = """Who is enrolled in what. Writes are commands: they take effect exactly once, in the order in which
they were issued, and are answered when their outcome is known. Every error is a problem (RFC 9457) with a `code`."""
_PROBLEM: Final = {"$ref": "#/components/schemas/ProblemDetails"}
_OF_ALL: Final[Mapping[int, str]] = {
    401: "The key is missing or not known.",
    403: "The key lacks the scope, or the request is not from this machine and no keys are configured.",
    429: "Too many requests; `Retry-After` says when.",
    500: "Not foreseen; it is in the gateway's log.",
    503: "The database, the broker or the event stream is away; `Retry-After` says when to come again.",
}
_OF_BODIES: Final[Mapping[int, str]] = {
    400: "The body cannot be read.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
}
_UNPROCESSABLE: Final = {422: "A field is missing, wrong or not known."}


def _header(about: str) -> dict[str, Any]:
    return {"description": about, "schema": {"type": "string"}}


def problems(descriptions: Mapping[int, str]) -> Responses:
    """Return the responses that are problems."""
    return {
        status: {"description": about, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
        for status, about in descriptions.items()
    }


def _taken(name: str, about: str) -> dict[str, Any]:
    """Return a header that is read from the request; to resolve it as a parameter would cost each request."""
    return {"name": name, "in": "header", **_header(about)}


_PREFER: Final = _taken("Prefer", "RFC 7240: `wait=N` seconds for the outcome (30 at most), or `respond-async`.")
_IF_NONE_MATCH: Final = _taken("If-None-Match", "The `ETag` of the answer that the client has.")
_ETAG: Final = {"ETag": _header("Changes with the answer."), "Cache-Control": _header("Ask again each time.")}
_NOT_MODIFIED: Final[Responses] = {304: {"description": "The client has it already."}}
LOOKUP: Final[Responses] = {
    200: {"description": "Found.", "headers": _ETAG},
    **_NOT_MODIFIED,
    **problems({404: "There is none.", **_UNPROCESSABLE}),
}
PAGES: Final[Responses] = {
    200: {"description": "A page.", "headers": {**_ETAG, "Link": _header('The next page, `rel="next"` (RFC 8288).')}},
    **_NOT_MODIFIED,
    **problems(_UNPROCESSABLE),
}
_APPLIED: Final = {"Preference-Applied": _header("What was done of `Prefer` (RFC 7240).")}
COMMAND: Final[Responses] = {
    **LOOKUP,
    200: {"description": "Found.", "headers": {**_ETAG, **_APPLIED}},
    **problems({409: "It has no outcome: its message is a dead letter."}),
}
WRITE: Final[Responses] = {
    200: {"description": "Applied: the student's courses, and what was done.", "headers": _APPLIED},
    202: {
        "description": "Sent, with no outcome yet.",
        "headers": {**_APPLIED, "Location": _header("Where the outcome will be.")},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
    },
    **problems(
        {
            404: "There is no such student.",
            409: "The `Idempotency-Key` was used for another request, or the gateway's clock is ahead.",
            422: "There are no such courses, which are named; or a field is missing, wrong or not known.",
            **_OF_BODIES,
        }
    ),
}
WITHDRAW: Final[Responses] = {
    200: {"description": "The command is withdrawn; this is what withdrew it.", "headers": _APPLIED},
    202: {
        "description": "Sent, with no outcome yet; `Location` is the command that is to be withdrawn.",
        "headers": {**_APPLIED, "Location": _header("Where the outcome will be.")},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Command"}}},
    },
    **problems({409: "It does not wait any more: `already_decided`.", **_UNPROCESSABLE}),
}
EVENTS: Final[Responses] = {
    200: {
        "description": "Server-sent events, without end. An event named `missed` says that some are gone for good.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **problems(_UNPROCESSABLE),
}
READY: Final = problems({503: "A part is away; `database`, `broker` and `events` say which."})
METRICS: Final[Responses] = {
    200: {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def set_openapi(app: FastAPI, *, keys: bool) -> None:
    """Give the app its OpenAPI document, made once; `keys` tells whether requests need one."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version="1", description=_ABOUT, routes=app.routes)
            app.openapi_schema = _completed(document, keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _completed(document: dict[str, Any], keys: bool) -> dict[str, Any]:  # noqa: FBT001 - by name one level up
    """Add what is true of every request, and take out what FastAPI says of errors that we answer ourselves."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (ProblemDetails, Accepted):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The client's key."},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The client's key."},
    }
    document["paths"] = {path: item for path, item in document["paths"].items() if not is_admin(path)}
    for path, item in document["paths"].items():
        for operation in item.values():
            takes = operation.setdefault("parameters", [])
            if "304" in operation["responses"]:
                takes.append(_IF_NONE_MATCH)
            if _APPLIED.keys() <= operation["responses"]["200"].get("headers", {}).keys():
                takes.append(_PREFER)
            if path in OPEN:
                operation["responses"].update({"429": problems(_OF_ALL)[429]})
            else:
                operation["security"] = [{"bearer": []}, {"key": []}] if keys else []
                operation["responses"].update({str(status): it for status, it in problems(_OF_ALL).items()})
    return document
