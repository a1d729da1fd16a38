"""Connections to PostgreSQL: one engine per process, made after the fork."""

from typing import Final

from sqlalchemy import Engine, create_engine

LOCK_TIMEOUT: Final = 10  # seconds; a batch that waits longer for a student's lock gives it up and tries again
STATEMENT_TIMEOUT: Final = 60  # seconds; no statement of ours comes near; one that does holds locks others wait for


def make_engine(url: str, *, application_name: str, pool_size: int = 1) -> Engine:
    """Return an engine for `url` (SQLAlchemy's form). Nothing is connected yet.

    Timeouts and keepalives are set so that a dead network is noticed in seconds, not hours.
    """
    return create_engine(
        url,
        isolation_level="READ COMMITTED",  # each statement sees what was committed while the last one waited
        pool_size=pool_size,
        max_overflow=4,
        pool_use_lifo=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,  # milliseconds
            "options": f"-c timezone=UTC -c lock_timeout={LOCK_TIMEOUT}s -c statement_timeout={STATEMENT_TIMEOUT}s",
        },
    )
