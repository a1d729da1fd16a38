"""The checks of `doctor` and the overview page. Each looks at one thing, says how it is, and changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from time import time
from typing import Any, Final, cast
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from enrollment.addresses import is_redis
from enrollment.connections import Connection as BrokerConnection
from enrollment.redis_client import client as redis_client
from migrations import NEWEST
from models import dead_letters, outbox, queries, replication
from models.address import parameters
from models.db_errors import describe
from models.engine import make_engine
from worker import health, rabbitmq, restores, schema
from worker.cli.output import number
from worker.health import Finding
from worker.heartbeats import asking, revisions
from worker.lists import read_by
from worker.locks import locked_tables, put_off_commands, slow_feed
from worker.lookout import PAGE, QUEUES, Search
from worker.publishing import connect
from worker.settings import BrokerOptions, Settings, SettingsError
from worker.standbys import lookups, standbys

POSTGRESQL: Final = 15
LATE: Final = 15.0  # seconds in the outbox after which something is wrong: beat looks every 5 s
PING: Final = 2.0  # seconds for the workers to answer; one that applies a batch answers after it
BEAT: Final = 3.0  # seconds for a heartbeat, of which one comes every two seconds, also from a worker that waits
PAGES: Final = 10_000  # of keys that are looked at: some seconds
_TOO_LARGE: Final = "unacked_too_large"  # the transport's hash of messages that no worker may see
_RECORDS: Final = {"unacked": b"hash", "unacked_index": b"zset", "unacked_deliveries": b"hash", _TOO_LARGE: b"hash"}
_WORKER: Final = "Start one with `celery -A worker worker`; where one runs, see `enrollment doctor --live` on its host"
_BUSY: Final = "Its log says what it waits for (`waiting_for_database`); if nothing, it answers after its batch"


def findings(settings: Settings | None = None) -> Iterator[Finding]:
    """Check everything, in the order in which one depends on another; the settings are read where none are given."""
    checks = (("database", _database), ("broker", _broker), ("events", _events), ("workers", _workers))
    yield from _of_all(*checks, settings=settings)


def _of_all(
    *checks: tuple[str, Callable[[Settings], Iterator[Finding]]], settings: Settings | None = None
) -> Iterator[Finding]:
    try:
        settings = settings or Settings.load()
    except SettingsError as error:
        yield Finding("fail", "settings", str(error))
        return
    for name, check in checks:
        yield from _guarded(name, check, settings)


def needed() -> Iterator[Finding]:
    """Check what a worker needs to take messages and finish them: the servers, and not how they are set."""
    yield from (
        finding for finding in _of_all(("database", _database), ("broker", _broker)) if finding.status != "warn"
    )


def _guarded(name: str, check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except SettingsError as error:
        yield Finding("fail", name, str(error))
    except (SQLAlchemyError, RedisError, OperationalError, OSError) as error:
        yield Finding("fail", name, describe(error).rstrip("."), _REACH[name])


_REACH: Final = {
    "database": "See that PostgreSQL runs and that ENROLLMENT_DATABASE_URL names it",
    "broker": "See that the broker runs and that ENROLLMENT_BROKER_URL names it",
    "events": "See that Redis runs and that ENROLLMENT_EVENTS_URL names it",
    "workers": "The workers cannot be asked without the broker",
}


def _database(settings: Settings) -> Iterator[Finding]:
    engine = make_engine(settings.require_database_url(), application_name="enrollment doctor")
    try:
        with engine.connect() as connection:
            yield _postgresql(connection)
            standing = replication.standing(connection)
            yield from standbys(standing, parameters(settings.require_database_url()))
            if standing.standby:
                return  # it refuses locks, too
            if address := settings.read_address():
                yield lookups(engine, address)
            migrated = _migrations(connection)
            yield migrated
            if migrated.status != "ok":
                return
            yield from restores.of_database(connection)
            locked = list(locked_tables(engine))
            yield from locked
            if not locked:  # the answers would have to be waited for
                yield from _catalog(connection)
                yield _backlog(connection)
                yield _dead_letters(connection)
                yield put_off_commands(engine, connection)
                yield from slow_feed(connection)
    finally:
        engine.dispose()


def _postgresql(connection: Connection) -> Finding:
    version: tuple[int | str, ...] = connection.dialect.server_version_info or (0,)
    shown = f"PostgreSQL {'.'.join(map(str, version))}"
    if int(version[0]) < POSTGRESQL:
        return Finding("fail", "database", shown, f"{POSTGRESQL} is the oldest that is supported")
    return Finding("ok", "database", shown)


def _migrations(connection: Connection) -> Finding:
    found = schema.status(connection)
    if found.current == found.newest:
        return Finding("ok", "migrations", f"at {found.current}, the newest")
    none = found.current is None
    message = "the tables are not there" if none else f"at {found.current}, the newest is {found.newest}"
    if not found.pending:
        return Finding("fail", "migrations", message, "The database is newer than this version; install that one")
    return Finding("fail", "migrations", message, "Run `enrollment migrate`")


def _catalog(connection: Connection) -> Iterator[Finding]:
    missing = [
        name
        for name, rows in (("students", queries.students), ("courses", queries.courses))
        if not rows(connection, limit=1).items
    ]
    if missing:
        advice = "Load them with `enrollment catalog load`; until then every command is rejected"
        yield Finding("warn", "catalog", f"there are no {' and no '.join(missing)}", advice)
    else:
        yield Finding("ok", "catalog", "there are students and courses")


def _backlog(connection: Connection) -> Finding:
    batches, age = outbox.backlog(connection)
    if not batches:
        return Finding("ok", "outbox", "every event was published")
    message = f"{number(batches, 'batch', 'batches')} not published, the oldest for {age:.0f} s"
    if age < LATE:
        return Finding("ok", "outbox", message)
    return Finding("warn", "outbox", message, "See that a worker and `celery -A worker beat` run and reach the stream")


def _dead_letters(connection: Connection) -> Finding:
    counts = dead_letters.counts(connection)
    if not counts:
        return Finding("ok", "dead letters", "none is open")
    found = ", ".join(f"{count.code} {count.letters:,}" for count in counts)
    message = f"{number(sum(count.letters for count in counts), 'dead letter')} open: {found}"
    advice = "See them with `enrollment dead-letters list` or on the admin page; replay or discard each"
    return Finding("warn", "dead letters", message, advice)


def _broker(settings: Settings) -> Iterator[Finding]:
    url = settings.require_broker_url()
    if not is_redis(url):
        yield from _amqp(url)
        return
    with connect(url) as client:
        whole = health.cluster("broker", client, *health.queue_keys(settings.broker_options.global_keyprefix))
        if whole.status == "fail":
            yield whole
            return
        info = cast("dict[str, Any]", client.info())
        yield health.redis_version("broker", info)
        yield health.persistence("broker", info)
        yield health.eviction("broker", info)
        own = int(client.connection_pool.connection_kwargs.get("db") or 0)
        yield from filter(None, [health.memory("broker", info), health.databases("broker", info, own)])
        yield from filter(None, [health.replication("broker", url, info)])
    with redis_client(url, socket_timeout=5, socket_connect_timeout=2) as raw:
        yield from _queues(raw, settings.broker_options)


def _queues(client: Any, options: BrokerOptions) -> Iterator[Finding]:
    prefix = options.global_keyprefix
    keys = {queue: sorted(read_by([queue], separator=options.sep, prefix=prefix)) for queue in QUEUES}
    wanted = {key: b"list" for each in keys.values() for key in each} | {prefix + k: v for k, v in _RECORDS.items()}
    kinds = {key: client.type(key) for key in wanted}
    for key, kind in kinds.items():
        if kind not in (wanted[key], b"none"):
            message = f"the key {key!r} is a {kind.decode()}, not a {wanted[key].decode()}"
            yield Finding("fail", "queues", message, "It stops the workers, or hides messages: rename or remove it")
    there = {key: client.llen(key) for key, kind in kinds.items() if kind == b"list" == wanted[key]}
    lengths = [f"{queue} {sum(there.get(key, 0) for key in keys[queue])}" for queue in QUEUES]
    sizes = {name: client.hlen(prefix + name) for name in _RECORDS if kinds[prefix + name] == b"hash"}
    yield Finding("ok", "queues", f"{', '.join(lengths)}, under way {sizes.get('unacked', 0)}")
    if aside := sizes.get(_TOO_LARGE):
        advice = f"Their dead letters (too_large) say more; HDEL from {prefix}{_TOO_LARGE} what is dealt with"
        yield Finding("warn", "queues", f"{number(aside, 'message')} set aside as too large", advice)
    search = Search(client, separator=options.sep, prefix=prefix)
    search.look(PAGES)
    for each in search.found:
        message = f"{each.key!r} has {number(each.messages, 'message')} and is read by no worker with these settings"
        yield Finding("warn", "queues", message, each.advice)
    if not search.done:
        yield Finding("warn", "queues", f"only {PAGES * PAGE:,} keys were looked at for lists that nobody reads")


def _amqp(url: str) -> Iterator[Finding]:
    with BrokerConnection(url, connect_timeout=5) as connection:
        connection.connect()
        yield Finding("ok", "broker", f"{urlsplit(url).scheme} answers")
        try:
            for name, count in rabbitmq.look(connection, QUEUES):
                yield Finding("ok", "queues", f"{name} {'is not there yet' if count is None else count}")
        except rabbitmq.QueueRefused as refused:
            yield Finding("fail", "queues", str(refused).rstrip("."))


def _events(settings: Settings) -> Iterator[Finding]:
    url, key = settings.require_events_url(), settings.events_stream
    with connect(url) as client:
        if settings.events_url is not None:
            info = cast("dict[str, Any]", client.info())
            yield health.redis_version("events", info)
            yield health.eviction("events", info)
            yield from filter(None, [health.replication("events", url, info)])
        whole = health.cluster("events", client, key)
        if whole.status == "fail":
            yield whole
            return
        kind = client.type(key)
        if kind == "none":
            yield Finding("ok", "events", f"{key} has no entries yet")
        elif kind != "stream":
            advice = "Remove that key, or set ENROLLMENT_EVENTS_STREAM to another"
            yield Finding("fail", "events", f"{key} is a {kind}, not a stream", advice)
        else:
            yield Finding("ok", "events", _stream(client, key))
        yield from restores.of_both(settings, client, key)


def _stream(client: Redis, key: str) -> str:
    length = client.xlen(key)
    newest = cast("list[tuple[str, Any]]", client.xrevrange(key, count=1))
    if not newest:
        return f"{key} has no entries"
    age = max(0.0, time() - int(newest[0][0].partition("-")[0]) / 1000)
    return f"{key} has {number(length, 'entry', 'entries')}, the newest {_ago(age)} old"


def _workers(settings: Settings) -> Iterator[Finding]:
    app = asking("doctor", settings.require_broker_url())
    app.conf.broker_transport_options = settings.transport_options()  # for the answers, on a connection of its own
    others = settings.require_broker_url().count(";")  # nodes of RabbitMQ
    options = {"max_retries": others, "socket_connect_timeout": 2, "socket_timeout": 5}
    with app.connection_for_write(transport_options=options) as connection:
        answers = app.control.inspect(timeout=PING, connection=connection).active_queues() or {}
        known = revisions(app, connection, BEAT)
    yield from _versions(known)
    if silent := sorted(known.keys() - answers.keys()):
        message = f"{', '.join(silent)} gives signs of life and does not answer: it waits for a server, or is busy"
        yield Finding("warn" if answers else "fail", "workers", message, _BUSY)
    if answers:
        yield Finding("ok", "workers", f"{number(len(answers), 'worker')}: {', '.join(sorted(answers))}")
        taken = {queue["name"] for queues in answers.values() for queue in queues or ()}
        for name in (name for name in QUEUES if name not in taken):
            advice = f"They were started or told so; `celery -A worker control add_consumer {name}` changes it"
            yield Finding("fail", "workers", f"none of them takes from {name}", advice)
    elif not known:
        yield Finding("fail", "workers", f"none answered within {PING:g} s", _WORKER)


def _versions(known: Mapping[str, str | None]) -> Iterator[Finding]:
    """Tell of workers of another version; `known` is the newest revision of the schema that each knows."""
    older = sorted(node for node, revision in known.items() if revision is None or revision < NEWEST)
    newer = sorted(node for node, revision in known.items() if revision is not None and revision > NEWEST)
    if older:
        message = f"{number(len(older), 'worker')} of {len(known)} of an older version: {', '.join(older)}"
        advice = "Do what `enrollment migrate status` says, then restart these, one after the other"
        yield Finding("warn", "versions", message, advice)
    if newer:
        message = f"{number(len(newer), 'worker')} of {len(known)} of a newer version: {', '.join(newer)}"
        yield Finding("warn", "versions", message, "Install that version here, too")


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
