"""The read side: the query module, off the event loop, over a small pool of connections."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Concatenate, Final, ParamSpec, TypeVar

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoAnswer

from enrollment.errors import UnknownStudent
from gateway.loop_sessions import LoopSessions
from gateway.together import Together
from models import queries
from models.engine import ONE_PLAN, make_engine
from models.session import QUIET
from models.standby import Standby

CONNECTIONS: Final = 8  # per process; a ninth question waits for one of the first
PATIENCE: Final = 10.0  # seconds for an answer, the wait for a connection included

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """Asks the database. Each statement sees what is committed at that moment: there is no transaction.

    page = await read(queries.students, after=None, limit=100)
    """

    def __init__(
        self,
        engine: Engine,
        standby: Standby | None = None,
        *,
        sessions: LoopSessions | None = None,
        connections: int = CONNECTIONS,
        patience: float = PATIENCE,
    ) -> None:
        self._engine = engine
        self._standby = standby
        self._patience = patience
        # As many threads as connections, and no more: one that a hung database holds is not replaced by another.
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="reader")
        self._sessions = sessions or LoopSessions(engine)
        self._courses_of: Together[int, list[queries.CourseRow] | None] = Together(self._courses_of_each)

    @classmethod
    def connect(
        cls,
        url: str | Callable[[], str],
        *,
        standbys: str | Callable[[], str] | None = None,
        connections: int = CONNECTIONS,
        patience: float = PATIENCE,
    ) -> "Database":
        """Return a reader of the database at `url`, for lookups at `standbys`. Nothing is connected yet."""
        name = "enrollment gateway"
        engine = make_engine(url, application_name=name, pool_size=connections)
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        standby = standbys and Standby.beside(engine, standbys, application_name=name, pool_size=connections)
        sessions = LoopSessions(make_engine(url, application_name=name, options=ONE_PLAN))
        return cls(engine, standby or None, sessions=sessions, connections=connections, patience=patience)

    async def __call__(
        self, question: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `question`, a function of `models`, finds.

        Raises what it raises, DBAPIError, and sqlalchemy's TimeoutError, an outage too, where no answer came in time.
        """
        return await self._in_thread(lambda: self._ask(lambda connection: question(connection, *args, **kwargs)))

    async def lookup(
        self, question: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `question` finds, which only reads: on a standby where one is up to date. Raises as a call."""

        def ask() -> T:
            try:
                if self._standby and (connection := self._standby.connect()):
                    with connection:
                        return question(connection, *args, **kwargs)
            except DBAPIError:  # it went away, or cancelled what was in the way of its primary
                if self._standby:
                    self._standby.leave()
            return self._ask(lambda connection: question(connection, *args, **kwargs))

        return await self._in_thread(ask)

    async def courses_of(self, student_id: int) -> list[queries.CourseRow]:
        """Return the courses a student is enrolled in. Raises UnknownStudent, and as a lookup."""
        courses = await self._courses_of(student_id)
        if courses is None:
            raise UnknownStudent(student_id)
        return courses

    async def _courses_of_each(self, student_ids: Sequence[int]) -> list[list[queries.CourseRow] | None]:
        """Return what `queries.courses_of_each` does: asked within the event loop, where a session is free for that.

        Where it says nothing for as long as a thread would wait to look for a newer primary, a thread asks. Raises as
        a lookup.
        """
        if self._standby:
            return await self.lookup(queries.courses_of_each, student_ids)
        async with self._in_time():
            # A thread asks again, or tells.
            with self._sessions.borrowed() as session, suppress(psycopg.Error, TimeoutError):
                if session is not None:
                    async with asyncio.timeout(QUIET):
                        return await queries.await_courses_of_each(session.session, session.ready, student_ids)
            found = await self.lookup(queries.courses_of_each, student_ids)
        self._sessions.replenish(self._threads)
        return found

    def _ask(self, question: Callable[[Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return question(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:  # else it went stale while idle, and a new one may answer
                raise
        with self._engine.connect() as connection:
            return question(connection)

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        async with self._in_time():
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                yield
        except TimeoutError:
            raise NoAnswer(f"No answer in {self._patience:g} s.") from None

    def stream(self, question: Callable[[Connection], Iterator[T]]) -> Iterator[T]:
        """Yield what `question` finds in one snapshot, on a connection of its own, as fast as it is taken."""
        with self._engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            yield from question(connection)

    def close(self) -> None:
        """Hang up. What is still under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sessions.close()
        if self._standby:
            self._standby.close()
        self._engine.dispose()
