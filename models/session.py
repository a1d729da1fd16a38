"""One connection that neither takes for done what one server alone has, nor waits for a server that was replaced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from models.pipeline import Pipeline

QUIET: Final = 1.0  # seconds without an answer after which somebody looks around, and again

RV = TypeVar("RV")

_meanwhile: ContextVar[Callable[[], None] | None] = ContextVar("meanwhile", default=None)


@contextmanager
def meanwhile(call: Callable[[], None]) -> Iterator[None]:
    """Call this too, about every second, while an answer is waited for here; what it raises ends the session.

    A server that is frozen says nothing, nor does a commit that waits for a standby. It may take hours.
    """
    outer = _meanwhile.get()

    def both() -> None:
        if outer:
            outer()
        call()

    before = _meanwhile.set(both)
    try:
        yield
    finally:
        _meanwhile.reset(before)


class Session(psycopg.Connection[TupleRow]):
    """A connection of psycopg, with three differences.

    A commit that was not waited for until the standby had it (somebody cancelled the wait) raises OperationalError:
    the same again waits until a standby has both. While an answer is waited for, `quiet` is called about every second,
    as is what `meanwhile` was given; where it raises, the session ends. And what was asked of `statements` goes first,
    whatever is sent; the commit goes with it.
    """

    quiet: Callable[[], None] | None = None
    statements: Pipeline
    _alone = False  # the commit under way is known to this server only

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Return a new connection, as psycopg does."""
        session = super().connect(conninfo, **options)
        session.statements = Pipeline(session)
        session.add_notice_handler(session._note)  # noqa: SLF001 - its own
        return session

    def commit(self) -> None:
        """Commit. Raises OperationalError where no standby may have it although it should."""
        self._alone = False
        if self.statements.asked:
            try:
                self.statements.send(commit=True)
            except psycopg.Error:
                if not self.closed:
                    super().rollback()  # after a commit, whatever came of it, there is no transaction
                raise
        else:
            super().commit()
        if self._alone:
            raise psycopg.OperationalError("the wait for the standby was cancelled: only this server has the commit")

    def rollback(self) -> None:
        """Roll back; what was asked and not yet sent is not sent."""
        self.statements.asked.clear()
        if self.pgconn.transaction_status != TransactionStatus.IDLE:  # the pool asks for it each time
            super().rollback()

    @property
    def begin_command(self) -> bytes:
        """What begins a transaction of this session."""
        return self._get_tx_start_command()

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        """Deallocate a statement; psycopg, after a rollback, all of them (None), whoever prepared them."""
        if name is None:
            self.statements.forget()
        return super()._deallocate(name)

    def wait(self, gen: PQGen[RV], *how: Any, **more: Any) -> RV:
        """Wait for the server, and look around meanwhile (psycopg calls it for each statement)."""
        if self.statements.asked:
            self.statements.send()
        attended = self.quiet is not None or _meanwhile.get() is not None
        return super().wait(self._attended(gen) if attended else gen, *how, **more)

    def _attended(self, gen: PQGen[RV]) -> PQGen[RV]:
        """Yield what `gen` waits for. psycopg sends 0 ten times a second while nothing comes."""
        ready: Any = None
        since = monotonic()
        try:
            while True:
                ready = yield gen.send(ready)
                if ready:
                    since = monotonic()
                elif monotonic() - since > QUIET:
                    self._look()
                    since = monotonic()
        except StopIteration as end:
            value: RV = end.value
            return value

    def _look(self) -> None:
        try:
            if call := _meanwhile.get():
                call()
            if self.quiet:
                self.quiet()
        except BaseException:
            self.pgconn.finish()  # in the middle of an answer: nothing else can be asked any more
            raise

    def _note(self, notice: Diagnostic) -> None:
        """See a wait that was cancelled. By the function that says so: the message may be in any language."""
        self._alone = self._alone or notice.source_function == "SyncRepWaitForLSN"
