"""Several statements in one round trip: libpq's pipeline (PostgreSQL manual, 32.5), without psycopg's layers above it.

What is asked is sent when the first answer is wanted, or with the commit: a transaction takes as many round trips as
there are times at which it must know something.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait

from models.arrays import Binary

if TYPE_CHECKING:
    from psycopg.rows import RowMaker

    from models.session import Session

T = TypeVar("T")


Await = Callable[[Wait], Awaitable[Ready]]  # until the socket of a session is what psycopg waits for


class Statement(NamedTuple):
    """SQL with the parameters `$1`, `$2` and so on. Each session prepares it once, under its name."""

    name: bytes
    sql: bytes


@cache
def statement_of(sql: bytes) -> Statement:
    """Return a statement. What has its name is the same in every process: a pooler may share sessions among them."""
    return Statement(f"enrollment_{sha1(sql, usedforsecurity=False).hexdigest()}".encode(), sql)


_DONE: Final = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC}
_COMMIT: Final = Statement(b"COMMIT", b"COMMIT")  # to be seen on the wire, too: the fault suite looks for it there
# The functions of the server that say so where a prepared statement is not there any more, or what it reads has changed
# its type: by function, as the codes are those of other errors, too.
_STALE: Final = {"FetchPreparedStatement", "RevalidateCachedQuery"}


class Question:
    """A statement with its arguments, as PostgreSQL writes them, and in the end what the server says to it."""

    __slots__ = ("arguments", "formats", "result", "statement")

    def __init__(self, statement: Statement, arguments: Sequence[bytes] = ()) -> None:
        self.statement = statement
        self.arguments = arguments
        self.formats = [Format.BINARY if isinstance(it, Binary) else Format.TEXT for it in arguments]
        self.result: PGresult | None = None


class Pipeline:
    """What one session has yet to send."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._prepared: set[Statement] = set()
        self._transformer = Transformer(session)
        self.asked: list[Question] = []

    def ask(self, statement: Statement, arguments: Sequence[bytes]) -> Question:
        """Take a statement, to be sent with the next one that has to be answered."""
        question = Question(statement, arguments)
        self.asked.append(question)
        return question

    def send(self, *, commit: bool = False, begin: bool = True) -> None:
        """Send what was asked, and read the answers; `begin`: in a transaction. Raises psycopg.Error.

        Where one statement fails, those after it are not run, nor is the commit.
        """
        questions, self.asked = self.asked, []
        idle = self._session.pgconn.transaction_status == TransactionStatus.IDLE
        if begin and idle and not self._session.autocommit:
            questions = [Question(statement_of(self._session.begin_command)), *questions]
        if commit:
            questions.append(Question(_COMMIT))
        with self._piped():
            sent = self._sent(questions)
            results = self._session.wait(self._results(len(sent) + 1))
        self._settle(sent, results)

    async def answered(self, statement: Statement, arguments: Sequence[bytes], ready: Await) -> PGresult:
        """Send one statement in a session that commits by itself, and await its answer. Raises psycopg.Error."""
        question = Question(statement, arguments)
        with self._piped():
            sent = self._sent([question])
            results = await _awaited(self._results(len(sent) + 1), ready)
        self._settle(sent, results)
        assert question.result is not None  # noqa: S101 (else settling has raised)
        return question.result

    @contextmanager
    def _piped(self) -> Iterator[None]:
        try:
            yield
            if self._session.pgconn.status == ConnStatus.OK:
                self._session.pgconn.exit_pipeline_mode()
        except BaseException:  # in the middle of the answers: nothing else can be asked any more
            self._session.pgconn.finish()
            raise

    def _settle(self, sent: "Sequence[Question | Statement | None]", results: Sequence[PGresult]) -> None:
        """Note what the server says to each of what was sent. Raises psycopg.Error for the first that failed."""
        for each, result in zip(sent, results, strict=False):
            if result.status not in _DONE:
                raise self._fault(result)
            if isinstance(each, Question):
                each.result = result
            elif each is not None:
                self._prepared.add(each)
        if len(results) <= len(sent):  # not even what was sent last is known to be done
            raise psycopg.OperationalError("the server hung up in the middle of its answers")

    def _sent(self, questions: Sequence[Question]) -> "list[Question | Statement | None]":
        """Hand questions to libpq; return what the results will be of, in order.

        First come the statements that are to be prepared, and None. They are apart, so that none is left out where a
        question fails: PgBouncer would take it for prepared all the same, and refuse its name the next time.
        """
        pgconn = self._session.pgconn
        new = list(dict.fromkeys(it.statement for it in questions if it.statement not in self._prepared))
        pgconn.enter_pipeline_mode()
        for statement in new:
            pgconn.send_prepare(statement.name, statement.sql)
        if new:
            pgconn.pipeline_sync()
        for question in questions:
            pgconn.send_query_prepared(question.statement.name, question.arguments, question.formats)
        pgconn.pipeline_sync()
        return [*new, None, *questions] if new else [*questions]

    def _fault(self, result: PGresult) -> psycopg.Error:
        """Return what went wrong; hang up where a new session, which prepares anew, mends it."""
        error = errors.error_from_result(result, encoding=self._session.info.encoding)
        if error.diag.source_function not in _STALE:
            return error
        self._session.pgconn.finish()
        return psycopg.OperationalError(str(error))

    def forget(self) -> None:
        """Take it that nothing is prepared any more."""
        self._prepared.clear()

    def rows(self, result: PGresult, make: Callable[[Any], T]) -> list[T]:
        """Return what `make` makes of the rows of an answer, as psycopg reads them."""
        self._transformer.set_pgresult(result)  # as text: binary, a name of type citext would be bytes
        return self._transformer.load_rows(0, result.ntuples, cast("RowMaker[T]", make))

    def _results(self, count: int) -> PQGen[list[PGresult]]:
        pgconn = self._session.pgconn
        yield from generators.send(pgconn)
        results: list[PGresult] = []
        try:
            for _ in range(count):
                results += yield from generators.fetch_many(pgconn)
        except psycopg.OperationalError:
            # A server that ends the session says why first.
            if not any(result.status == ExecStatus.FATAL_ERROR for result in results):
                raise
        return results


async def _awaited(steps: PQGen[T], ready: Await) -> T:
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(await ready(wanted))
    except StopIteration as end:
        value: T = end.value
        return value
