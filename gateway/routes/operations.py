"""For whoever keeps the gateway running."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway import metrics
from gateway.answers import answer
from gateway.dependencies import Held
from gateway.describing import METRICS, READY
from models import queries

router = APIRouter(tags=["operations"])

_PATIENCE: Final = 2.0  # seconds for each part to answer

Part = Literal["ok", "away"]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests can be served, and of what they need, which part does not answer."""

    status: Annotated[Literal["ok", "unavailable"], Field(examples=["ok"])]
    database: Part
    broker: Part
    events: Part


@router.get("/healthz", response_model=Health)
async def get_health() -> Response:
    """Tell that the process is alive; what it depends on is not asked."""
    return answer(Health(status="ok"))


@router.get("/readyz", response_model=Readiness, responses=READY)
async def get_readiness(gateway: Held) -> Response:
    """Tell whether requests can be served: the database, the broker and the event stream are asked."""
    database, broker = await asyncio.gather(
        _part(gateway.read(queries.courses, limit=1)), _part(gateway.outbound.check())
    )
    events: Part = "ok" if gateway.listener.live else "away"
    ready = database == broker == events == "ok"
    content = Readiness(status="ok" if ready else "unavailable", database=database, broker=broker, events=events)
    return answer(content, 200 if ready else 503, {"Cache-Control": "no-store"})


@router.get("/metrics", response_class=Response, responses=METRICS)
async def get_metrics(gateway: Held) -> Response:
    """Numbers for Prometheus."""
    return Response(gateway.metrics.text(), media_type=metrics.CONTENT_TYPE)


async def _part(question: Awaitable[object]) -> Part:
    try:
        await asyncio.wait_for(question, _PATIENCE)
    except Exception:  # noqa: BLE001 - whatever it is, it is no answer
        return "away"
    return "ok"
