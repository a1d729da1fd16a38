"""What writes say in their body."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final, Self

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from enrollment.commands import AnyCourses, Id, IssuedAt, SomeCourses
from gateway.problems import Problem

_ONE_OF: Final[dict[str, Any]] = {"oneOf": [{"required": ["course_ids"]}, {"required": ["course_id"]}]}


def _examples(*examples: dict[str, Any], **more: Any) -> ConfigDict:
    return ConfigDict(frozen=True, strict=True, extra="forbid", json_schema_extra={"examples": list(examples), **more})


class When(BaseModel):
    """When the request is to take effect, and how long it waits for what does not exist yet."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    effective_at: Annotated[IssuedAt | None, Field(description="When it is to take effect. Default: now.")] = None
    wait_until: Annotated[
        IssuedAt | None,
        Field(description="Until when a student or course that does not exist is waited for. Default: as set, not."),
    ] = None


class Courses(When):
    """One course, or several."""

    model_config = _examples({"course_ids": [101, 102]}, {"course_id": 101}, **_ONE_OF)

    # The defaults stand for what was not said; null is no course.
    course_ids: Annotated[SomeCourses, Field(description="The courses; one named twice counts once.")] = ()
    course_id: Annotated[Id, Field(description="The course, where there is one.")] = 0

    @model_validator(mode="after")
    def _either(self) -> Self:
        if len(self.model_fields_set & {"course_ids", "course_id"}) != 1:
            raise ValueError("say either course_ids or course_id")
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """The courses, however they were said."""
        return self.course_ids or (self.course_id,)


class StudentAndCourses(Courses):
    """A student, and one course or several."""

    model_config = _examples(
        {"student_id": 42, "course_ids": [101, 102]}, {"student_id": 42, "course_id": 101}, **_ONE_OF
    )

    student_id: Annotated[Id, Field(description="The student.")]


class AllCourses(When):
    """All the courses a student shall have."""

    model_config = _examples({"course_ids": [101, 103]}, {"course_ids": []})

    course_ids: Annotated[AnyCourses, Field(description="All the courses; an empty list means none.")]


class Difference(When):
    """Courses to add, courses to take away, or both; no course is in both."""

    model_config = _examples(
        {"add": [103], "remove": [101, 102]},
        {"add": [103], "remove": []},
        anyOf=[{"required": [field], "properties": {field: {"minItems": 1}}} for field in ("add", "remove")],
    )

    add: Annotated[AnyCourses, Field(description="Courses to enroll the student in.")] = ()
    remove: Annotated[AnyCourses, Field(description="Courses to unenroll the student from.")] = ()

    @model_validator(mode="after")
    def _some_and_apart(self) -> Self:
        if not self.add and not self.remove:
            raise ValueError("say courses to add, courses to remove, or both")
        both = sorted(set(self.add) & set(self.remove))
        if both:
            raise ValueError(f"to be added and removed at once: {', '.join(map(str, both[:10]))}")
        return self


class BodyRoute(APIRoute):
    """A route whose body says each field once: of two that differ nobody knows which one is meant.

    FastAPI describes it, and answers what is not valid. What is valid passes over its layers (`WritesMiddleware`), by
    the same validators.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what an APIRoute takes; a field of the path, the header or the body is not a list."""
        super().__init__(*arguments, **options)
        known = self.dependant
        if known.dependencies or known.query_params or known.cookie_params:
            raise TypeError(
                f"{self.path}: a BodyRoute takes path, headers and body alone; the rest would be passed over"
            )

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return answer

    def arguments(self, path: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Return the endpoint's arguments. Raises ValueError, RecursionError or a Problem where one is not valid."""
        content = _read(body) if body else None
        values = {}
        for fields, said in (
            (self.dependant.path_params, path),
            (self.dependant.header_params, headers),
            (self.dependant.body_params, None),
        ):
            for field in fields:
                value = content if said is None else said.get(field.alias)
                if value is not None or field.field_info.is_required():
                    values[field.name], errors = field.validate(value)
                    if errors:
                        raise ValueError(errors)
        return values


class _Request(Request):
    async def json(self) -> Any:
        """Return what the body says. Raises a Problem, 400, which FastAPI hands on as the cause of its own."""
        return _read(await self.body())


def _read(body: bytes) -> Any:
    return json.loads(body, object_pairs_hook=_each_once)


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        shown = name[:64].encode("utf-8", "replace").decode()
        raise Problem(
            400,
            "bad_request",
            f"{shown} stands twice in the body. Say it once and send the request again.",
            fields=[shown],
        )
    return fields
