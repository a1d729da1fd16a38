"""Sessions with the database that are asked within the event loop: a thread takes longer than a short answer."""

import asyncio
import os
import select
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from time import monotonic
from typing import Final, cast

import psycopg
from psycopg.waiting import Ready, Wait
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.engine import RECYCLE
from models.session import Session

SESSIONS: Final = 2  # per process, besides those of threads


class LoopSession:
    """A session whose socket the event loop watches all the time: to begin and to end that for each answer costs more.

    What comes while nobody asks is its end.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._until = monotonic() + RECYCLE
        self._fileno = os.dup(session.fileno())  # which nobody else closes
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fileno, self._come, Ready.R)
        self._ready: asyncio.Future[Ready] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it may be asked."""
        return not self.session.closed and monotonic() < self._until

    async def ready(self, wanted: Wait) -> Ready:
        """Wait for the socket."""
        self._ready = self._loop.create_future()
        if wanted & Wait.W:
            self._loop.add_writer(self._fileno, self._come, Ready.W)
        try:
            return await self._ready
        finally:
            if wanted & Wait.W:
                self._loop.remove_writer(self._fileno)

    def close(self) -> None:
        """Hang up."""
        if self._fileno >= 0:
            self._loop.remove_reader(self._fileno)
            os.close(self._fileno)
            self._fileno = -1
        self.session.close()

    def rest(self) -> None:
        """Take it that nobody asks any more."""
        self._ready = None

    def _come(self, what: Ready) -> None:
        if self._ready is None:
            if _is_readable(self._fileno):  # the loop may tell once more of what was read since
                self.close()
        elif not self._ready.done():
            self._ready.set_result(what)


def _is_readable(fileno: int) -> bool:
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))


class LoopSessions:
    """Few sessions, each asked by one at a time. They commit by themselves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._free: list[LoopSession] = []
        self._missing = SESSIONS
        self._closed = False

    @contextmanager
    def borrowed(self) -> Iterator[LoopSession | None]:
        """Give a session; None where there is none that is free."""
        session = self._free_one()
        try:
            yield session
        finally:
            if session is not None:
                session.rest()
                self._free.append(session)
                if self._closed or not session.is_up:  # its server may have been replaced, and theirs with it
                    self._give_up_free()

    def replenish(self, threads: Executor) -> None:
        """Open one that is missing, in a thread. To be called when the database has answered."""
        if self._missing and not self._closed:
            self._missing -= 1
            threads.submit(self._open, asyncio.get_running_loop())

    def close(self) -> None:
        """Hang up; one that is borrowed, when it comes back."""
        self._closed = True
        self._give_up_free()
        self._engine.dispose()

    def _free_one(self) -> LoopSession | None:
        while self._free:
            session = self._free.pop()
            if session.is_up:
                return session
            self._give_up(session)
        return None

    def _give_up_free(self) -> None:
        while self._free:
            self._give_up(self._free.pop())

    def _give_up(self, session: LoopSession) -> None:
        session.close()
        self._missing += 1

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        session = None
        try:
            connection = self._engine.raw_connection()
            session = cast(Session, connection.driver_connection)
            connection.detach()
            session.autocommit = True
            loop.call_soon_threadsafe(self._take, session)
        except (SQLAlchemyError, psycopg.Error):  # the next answer of a thread tries again
            loop.call_soon_threadsafe(self._take, None)
        except RuntimeError:  # the event loop has ended meanwhile
            if session is not None:
                session.close()

    def _take(self, session: Session | None) -> None:
        if session is None:
            self._missing += 1
        elif self._closed:
            session.close()
        else:
            self._free.append(LoopSession(session))
