"""Connections to PostgreSQL: one engine per process, made after the fork."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, ExceptionContext, create_engine, event

from models.address import parameters, session_options
from models.primary import WRITABLE, Primary, hosts
from models.session import Session

LOCK_TIMEOUT: Final = 10  # seconds; a person or a program that asks learns then that the answer is locked
STATEMENT_TIMEOUT: Final = 60  # seconds; no statement of ours comes near; one that does holds locks others wait for
IDLE_TIMEOUT: Final = 30  # seconds; nothing here pauses so long in a transaction: who does is frozen, or gone

# For the server's side of the connection as well: it holds the locks of a client that it has not missed yet.
_OPTIONS: Final = {
    "timezone": "UTC",
    "lock_timeout": f"{LOCK_TIMEOUT}s",
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

# For who finds all rows by key: PostgreSQL keeps plans, and one that was made while a table was small would read all of
# it when it has grown.
BY_KEY: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

# For who asks one statement by key again and again: PostgreSQL would plan it each time, for the number of its keys.
ONE_PLAN: Final = {**BY_KEY, "plan_cache_mode": "force_generic_plan"}

# For the worker: while it waits for a lock, everybody's commands wait. What is locked for longer is deferred.
WORKER: Final = {**BY_KEY, "lock_timeout": "300ms"}
WORKER_NAME: Final = "enrollment worker"  # its application_name

_NETWORK: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
# Of several servers, one that hangs is passed over soon: work goes on within 5 s of a promotion.
_OF_SEVERAL: Final = {"connect_timeout": "2", "target_session_attrs": "read-write"}
RECYCLE: Final = 60  # seconds; a session on a server that was replaced, which nothing has ended, is not kept for longer
_READING: Final = {"connect_timeout": "2", "target_session_attrs": "prefer-standby", "load_balance_hosts": "random"}


def make_engine(
    url: str | Callable[[], str],
    *,
    application_name: str,
    pool_size: int = 1,
    options: Mapping[str, str] = MappingProxyType({}),
    reading: bool = False,
) -> Engine:
    """Return an engine for `url`, with `options` set in each session. Nothing is connected yet.

    Timeouts and keepalives are set so that a dead network is noticed in seconds, not hours, on both ends. What the
    address says of the connection is kept; of the session (`options`, its service's, PGOPTIONS) all but what is set
    here. Where `url` is a function, each new connection has the user and the password that it returns then. Of several
    hosts, each new connection is to the primary (`models.primary`); with `reading`, to any of the standbys. Raises
    ValueError for an address that libpq does not read.
    """
    said = parameters(url() if callable(url) else url)
    if reading or len(list(hosts(said))) > 1:
        said = {**(_READING if reading else _OF_SEVERAL), **said}
    connect = Primary().connect if said.get("target_session_attrs") in WRITABLE else _connect
    ours = " ".join(f"-c {name}={value}" for name, value in {**_OPTIONS, **options}.items())
    engine = create_engine(
        "postgresql+psycopg://",
        isolation_level="READ COMMITTED",  # each statement sees what was committed while the last one waited
        pool_size=pool_size,
        max_overflow=4,
        pool_use_lifo=True,
        pool_recycle=-1 if connect is _connect else RECYCLE,
        connect_args={
            "fallback_application_name": application_name,
            **_NETWORK,
            **said,
            "options": f"{session_options(said)} {ours}",  # of two with one name, PostgreSQL takes the second
        },
    )
    if callable(url):
        event.listen(engine, "do_connect", lambda *it: _renew(it[-1], url))
    event.listen(engine, "do_connect", lambda *it: connect(it[-1]))
    event.listen(engine, "handle_error", _see_read_only)
    return engine


def _connect(connect_args: Mapping[str, Any]) -> Session:
    return Session.connect(**connect_args)


def _see_read_only(context: ExceptionContext) -> None:
    """Hang up where a server takes no writes: a new connection may find the one that does."""
    if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        context.is_disconnect = True


def _renew(connect_args: dict[str, Any], url: Callable[[], str]) -> None:
    said = parameters(url())
    connect_args.update((name, said[name]) for name in ("user", "password") if name in said)
