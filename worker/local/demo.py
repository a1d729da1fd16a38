"""The demo: everything started, some hundred messages sent, and what came of them counted and shown."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from redis import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy import Connection

from enrollment.client import Client
from enrollment.names import BULK_QUEUE, QUEUE, STREAM
from models.engine import make_engine
from tasks import catalog_files
from worker.local.errors import LocalError
from worker.local.scenario import EXPECTED, PARTS, Stage
from worker.local.stack import DATABASE, Stack
from worker.local.stack import FOLDER as LOCAL
from worker.local.summary import Summary, collect, show
from worker.publishing import connect

FOLDER: Final = LOCAL / "demo"
DATA: Final = Path(__file__).parent / "data"
PATIENCE: Final = 60.0  # seconds for the worker to be done with everything
_POLL: Final = 0.05  # seconds
_UNACKED: Final = "unacked"  # kombu's hash of the messages under way


class NotDone(LocalError):
    """The worker was not done after {seconds} s: {events} of {expected} events. The end of its log, {log}: {tail}"""


def main(folder: Path | None = None) -> int:
    """Run the demo; return 0 if all numbers are what they must be. Raises LocalError."""
    console, begin = Console(highlight=False), monotonic()
    stack = Stack(folder or FOLDER, durable=False)
    try:
        with _step(console, "Start PostgreSQL, Redis, a Celery worker and beat"):
            _empty(stack)
            stack.start()
        with opened(stack) as (connection, redis):
            summary = _play(console, stack, connection, redis)
    finally:
        with _step(console, "Stop everything"):
            stack.stop()
    show(console, summary, seconds=monotonic() - begin)
    return 0 if summary.found == EXPECTED else 1


def load_catalog(connection: Connection) -> tuple[int, int]:
    """Load the catalog that comes with the project; return how many students and courses are new."""
    done = catalog_files.load(connection, students=DATA / "students.csv", courses=DATA / "courses.csv")
    return done["students"].inserted, done["courses"].inserted


def _play(console: Console, stack: Stack, connection: Connection, redis: Redis) -> Summary:
    with _step(console, "Load the students and courses"):
        load_catalog(connection)
        connection.commit()
    messages, begin = sum(part.messages for part in PARTS), monotonic()
    with Client(stack.broker_url) as client, _step(console, f"Send {messages} messages"):
        stage = Stage(client, redis)
        for part in PARTS:
            part.play(stage)
    _wait(console, stack, redis)
    return collect(connection, redis, seconds=monotonic() - begin)


def _empty(stack: Stack) -> None:
    """Begin with nothing. The servers' own files are kept: making them takes longer than all the rest."""
    stack.redis.start()
    with connect(stack.redis.url) as redis:
        redis.flushall()
    stack.postgres.start()
    stack.postgres.drop_database(DATABASE)


@contextmanager
def opened(stack: Stack) -> Iterator[tuple[Connection, Redis]]:
    """Give a connection to the stack's database, and one to its Redis."""
    engine = make_engine(stack.database_url.replace("://", "+psycopg://", 1), application_name="enrollment demo")
    try:
        with engine.connect() as connection, connect(stack.broker_url) as redis:
            yield connection, redis
    finally:
        engine.dispose()


def _wait(console: Console, stack: Stack, redis: Redis) -> None:
    """Wait until every message is processed, and every command's event is on the stream. Raises NotDone."""
    expected, worker, begin = EXPECTED.applied + EXPECTED.rejected, stack.workers[0], monotonic()
    columns = (TextColumn("  Process them"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=expected)
        while (events := redis.xlen(STREAM)) < expected or _unprocessed(redis):
            bar.update(task, completed=events)
            seconds = monotonic() - begin
            if seconds > PATIENCE or not worker.running:
                raise NotDone(
                    seconds=round(seconds), events=events, expected=expected, log=worker.log, tail=worker.tail()
                )
            sleep(_POLL)
    _done(console, f"Process them, {events} events", monotonic() - begin)


def _unprocessed(redis: Redis) -> int:
    return redis.llen(QUEUE) + redis.llen(BULK_QUEUE) + redis.hlen(_UNACKED)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on, and then how long it took."""
    begin = monotonic()
    with console.status(what) if console.is_terminal else nullcontext():
        yield
    _done(console, what, monotonic() - begin)


def _done(console: Console, what: str, seconds: float) -> None:
    console.print(f"  [green]✓[/] {what} [dim]({seconds:.1f} s)[/]")
