"""The read side: the query module, off the event loop, over a small pool of connections."""

from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from models.engine import make_engine

CONNECTIONS: Final = 8  # per process; a ninth question waits for one of the first

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """Asks the database. Each statement sees what is committed at that moment: there is no transaction.

    page = await read(queries.students, after=None, limit=100)
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limiter = CapacityLimiter(CONNECTIONS)

    @classmethod
    def connect(cls, url: str) -> "Reader":
        """Return a reader of the database at `url`. Nothing is connected yet."""
        engine = make_engine(url, application_name="enrollment gateway", pool_size=CONNECTIONS)
        return cls(engine.execution_options(isolation_level="AUTOCOMMIT"))

    async def __call__(
        self, question: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `question`, a function of `models`, finds. Raises what it raises, and DBAPIError."""

        def ask() -> T:
            try:
                with self._engine.connect() as connection:
                    return question(connection, *args, **kwargs)
            except DBAPIError as error:
                if not error.connection_invalidated:  # else it went stale while idle, and a new one may answer
                    raise
            with self._engine.connect() as connection:
                return question(connection, *args, **kwargs)

        return await to_thread.run_sync(ask, limiter=self._limiter)

    def close(self) -> None:
        """Hang up."""
        self._engine.dispose()
