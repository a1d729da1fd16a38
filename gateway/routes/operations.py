"""For whoever keeps the gateway running."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway import metrics
from gateway.dependencies import Held
from gateway.openapi import METRICS, READY
from gateway.problems import Problem
from gateway.readiness import Part
from gateway.schemas.responses import answer

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """Requests can be served: all that they need answers."""

    status: Annotated[Literal["ok"], Field(examples=["ok"])]
    database: Part
    broker: Part
    events: Part


@router.get("/healthz", response_model=Health)
async def get_health() -> Response:
    """Tell that the process is alive; what it depends on is not asked."""
    return answer(Health(status="ok"))


@router.get("/readyz", response_model=Ready, responses=READY)
async def get_readiness(gateway: Held) -> Response:
    """Tell whether requests can be served: the database, the broker and the event stream are asked, once a second."""
    parts = await gateway.readiness.parts()
    headers = {"Cache-Control": "no-store"}
    if parts.away:
        raise Problem(
            503,
            "unavailable",
            f"No answer from: {', '.join(parts.away)}. Send requests to another gateway, or again in a few seconds.",
            headers={**headers, "Retry-After": "1"},
            more=parts._asdict(),
        )
    return answer(Ready(status="ok", **parts._asdict()), headers=headers)


@router.get("/metrics", response_class=Response, responses=METRICS)
async def get_metrics(gateway: Held) -> Response:
    """Numbers for Prometheus."""
    return Response(gateway.metrics.text(), media_type=metrics.CONTENT_TYPE)
