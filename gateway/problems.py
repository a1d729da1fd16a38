"""Errors as a client reads them: problem details (RFC 9457), from one place."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:enrollment:problem:"


class ProblemDetails(BaseModel):
    """A problem (RFC 9457). `code` never changes its meaning; `detail` says what is wrong and what to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:enrollment:problem:unknown_courses",
                "title": "Unknown courses",
                "status": 422,
                "code": "unknown_courses",
                "detail": "There is no course 999. Nothing was changed. Create it or leave it out, then send the "
                "request again with a new Idempotency-Key.",
                "ids": [999],
                "fields": ["course_ids"],
            }
        }
    )

    type: Annotated[str, Field(description="`urn:enrollment:problem:` and the code.")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    code: str
    detail: str
    ids: Annotated[list[int], Field(description="The student or course ids concerned.")] = []
    fields: Annotated[list[str], Field(description="The fields concerned.")] = []


class Problem(Exception):
    """What a request is answered with when it cannot be done. `more` are further members."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        ids: Sequence[int] = (),
        fields: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.code = code
        self.detail = detail
        self.ids = tuple(ids)
        self.fields = tuple(fields)
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def content(self) -> dict[str, Any]:
        """Return the members of the problem."""
        return {
            "type": TYPE + self.code,
            "title": self.code.replace("_", " ").capitalize(),
            "status": int(self.status),
            "code": self.code,
            "detail": self.detail,
            **({"ids": list(self.ids)} if self.ids else {}),
            **({"fields": list(self.fields)} if self.fields else {}),
            **self.more,
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.content(), self.status, self.headers, MEDIA_TYPE)
