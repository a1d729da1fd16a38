"""The application: routes, guards and error handlers put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from gateway import admin, exception_handlers
from gateway.dependencies import Gateway
from gateway.middleware.admission import AdmissionMiddleware, is_admin
from gateway.middleware.request_log import RequestLogMiddleware
from gateway.middleware.tracing import TracingMiddleware
from gateway.middleware.writes import WritesMiddleware
from gateway.openapi import set_openapi
from gateway.routes import changes, commands, courses, docs, enrollments, events, operations, students
from worker import logging, tracing
from worker.settings import Settings

_FIRST_CONNECT = 1.0  # seconds that a start waits for the event stream; it goes on without


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It connects when it starts. Raises SettingsError."""
    tracing.configure(settings, "enrollment-gateway")
    gateway = Gateway.connect(settings)
    app = FastAPI(
        title="Enrollment gateway",
        lifespan=_lifespan,
        docs_url=None,  # they load scripts from elsewhere; ours is gateway/routes/docs.py
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would name paths, which have ids
    )
    app.state.gateway = gateway
    for module in (enrollments, students, courses, commands, events, changes, operations, docs):
        app.router.routes.extend(module.router.routes)  # side by side: FastAPI looks twice at what it includes
    app.include_router(admin.router)
    exception_handlers.register(app, _error_response)
    set_openapi(app, keys=not gateway.authenticator.local_only)
    app.add_middleware(WritesMiddleware, routes=enrollments.router.routes, refusal=_error_response)
    app.add_middleware(
        AdmissionMiddleware,
        authenticator=gateway.authenticator,
        buckets=gateway.buckets,
        max_body=settings.gateway_max_body,
        refusal=_error_response,
    )
    app.add_middleware(RequestLogMiddleware, metrics=gateway.metrics)
    app.add_middleware(TracingMiddleware)
    return app


def from_environment() -> FastAPI:
    """Return the application, for `uvicorn --factory gateway.app:from_environment`."""
    settings = Settings.load()
    logging.configure(settings.log_level, settings.log_format)
    return create_app(settings)


def _error_response(request: Request, error: Exception) -> Response:
    """Return an error as whoever asked reads it. Raises what nobody foresaw."""
    if is_admin(request.url.path):
        return admin.error_page(request, error)
    return exception_handlers.problem_of(request, error).response()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    gateway.listener.start()
    await gateway.listener.connected(_FIRST_CONNECT)
    yield
    await gateway.close()
    if overview := getattr(app.state, "admin_overview", None):
        overview.close()
