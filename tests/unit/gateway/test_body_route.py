"""Writes pass over FastAPI's layers, but over nothing that a route asks of them."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.schemas.requests import BodyRoute, Courses


def caller() -> str:
    raise NotImplementedError


async def with_dependency(request: Request, body: Courses, who: Annotated[str, Depends(caller)]) -> Response:
    raise NotImplementedError


async def with_query(request: Request, body: Courses, who: Annotated[str, Query()]) -> Response:
    raise NotImplementedError


@pytest.mark.parametrize("endpoint", [with_dependency, with_query])
def test_a_route_that_asks_for_more_is_refused(endpoint: object) -> None:
    router = APIRouter(route_class=BodyRoute)
    with pytest.raises(TypeError, match="path, headers and body"):
        router.post("/x", response_model=None)(endpoint)  # type: ignore[type-var]
