"""What every test may ask for."""

import sys

import structlog
from hypothesis import settings

from tests.admin import admin, admin_url, chromium, cookie, courses_of, dead_letter, extremes, page, visitor
from tests.gateway import backend, gateway_url, http
from tests.programs import executed, forked
from tests.servers import (
    database_url,
    engine,
    postgres,
    redis,
    redis_client,
    redis_url,
    server_folder,
    session_postgres,
    session_redis,
    template_database,
)
from tests.tls import mutual_tls, tls

settings.register_profile("untimed", deadline=None)  # an example that takes long on a busy machine is no failure
settings.load_profile("untimed")
# Not into what a test captures: a gateway in a thread may log its last answer while the next test runs.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stdout__))

__all__ = [
    "admin",
    "admin_url",
    "backend",
    "chromium",
    "cookie",
    "courses_of",
    "database_url",
    "dead_letter",
    "engine",
    "executed",
    "extremes",
    "forked",
    "gateway_url",
    "http",
    "mutual_tls",
    "page",
    "postgres",
    "redis",
    "redis_client",
    "redis_url",
    "server_folder",
    "session_postgres",
    "session_redis",
    "template_database",
    "tls",
    "visitor",
]
