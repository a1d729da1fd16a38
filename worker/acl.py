"""Users of Redis with the least rights: which commands, keys and channels each program needs. Pure.

The lists are what the programs really send; tests/acceptance/test_privileges.py runs them as these users, and tries the
rest. Redis 7 or later: an older one cannot tell reading a key from changing it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs, urlsplit

from enrollment.names import BULK_QUEUE, QUEUE
from worker.lists import SEPARATOR
from worker.settings import BrokerOptions

PREFIX: Final = "enrollment-"  # of the users' names

_CONNECT: Final = "ping select client|setname client|setinfo"
_PUT: Final = "lpush wait info"  # the last two where replicas must have it
_DECLARE: Final = "llen sadd smembers multi exec"  # what stock Celery does before it sends
_FOLLOW: Final = "xread xrange xrevrange xinfo|stream"
_GROUP: Final = (
    "xreadgroup xack xautoclaim xgroup|create xgroup|setid xinfo|groups xinfo|stream "
    "eval time hget hmget hset hdel exists"  # notes of what a group missed
)
_REMEMBER: Final = "get set exists multi exec"  # commands and sessions, for all gateways
# Remote control and events of Celery: published to all workers, answered into a list of the asker's own.
_BROADCAST: Final = "publish subscribe psubscribe unsubscribe punsubscribe"
_ANSWERS: Final = (
    "llen brpop del sadd srem smembers multi exec pexpire "
    "evalsha script|load script|exists time zadd zrem zrangebyscore exists"  # kombu's notes of who listens
)
_TRANSPORT: Final = "blmove rpop rpush hset hget hmget hdel hlen hexists eval"
_PUBLISH: Final = "set del xadd xlen xtrim xpending xinfo|groups xinfo|consumers"  # in a script
_COUNT: Final = "mget incr expire"  # what RabbitMQ delivers again
_LOOK: Final = "info type scan xlen xrevrange xinfo|stream"  # `doctor`, and what a worker warns of
_MEASURE: Final = "lindex hlen xinfo|stream xinfo|groups info"

_QUEUES: Final = (QUEUE, BULK_QUEUE)
_CLAIMS: Final = ("unacked", "unacked_index", "unacked_deliveries", "unacked_too_large")
_OWN: Final = ("*.celery.pidbox*", "celeryev.*")  # queues of one process: answers, and events of Celery


@dataclass(frozen=True, slots=True)
class User:
    """A user of Redis: a role, and patterns of keys and channels, and commands that it may use."""

    role: str
    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()  # keys that it may not change
    channels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in Redis."""
        return f"{PREFIX}{self.role}"

    def line(self, password: str | None = None) -> str:
        """Return its line in Redis's `aclfile`; without a password nobody can log in as it yet."""
        secret = [] if password is None else [f"#{sha256(password.encode()).hexdigest()}"]
        return " ".join(["user", self.name, *self.rules(secret)])

    def rules(self, secret: Iterable[str] = ()) -> list[str]:
        """Return the rules of `ACL SETUSER`. They begin with `reset`."""
        patterns = {"~": self.keys, "%R~": self.reads, "&": self.channels, "+": self.commands}
        return ["reset", "on", *secret, *(f"{sign}{it}" for sign, each in patterns.items() for it in each)]


def users(*, stream: str, options: BrokerOptions, database: int = 0) -> list[User]:
    """Return the users for these names. `database`: the number in the broker's address, which channels have in them."""
    names = _Names(stream, options, database)
    return list(_users(names))


def database_of(url: str) -> int:
    """Return the number of the logical database in an address of Redis."""
    parts = urlsplit(url)
    said = parse_qs(parts.query).get("db", [""])[0] or parts.path.strip("/")
    return int(said or 0)


@dataclass(frozen=True, slots=True)
class _Names:
    stream: str
    options: BrokerOptions
    database: int

    def keys(self, *names: str) -> Sequence[str]:
        """Return keys of the broker, with the prefix there may be."""
        return [f"{escaped(self.options.global_keyprefix)}{name}" for name in names]

    @property
    def queues(self) -> Sequence[str]:
        """The lists of the queues, and what kombu notes of them."""
        separators = dict.fromkeys((self.options.sep, SEPARATOR))
        steps = [f"{queue}{escaped(each)}[1-9]" for queue in _QUEUES for each in separators]
        return self.keys(
            *_QUEUES, *steps, *(f"_kombu.binding{kind}.{queue}" for kind in ("", "_permanent") for queue in _QUEUES)
        )

    @property
    def control(self) -> Sequence[str]:
        """What kombu notes of exchanges for remote control, and the lists of answers."""
        return self.keys("_kombu.binding*", *_OWN)  # whoever listens sweeps the notes of who has gone

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of remote control and of Celery's events."""
        # Who subscribes to a pattern has to have the right to the same pattern, letter by letter.
        names = ("celery.pidbox", "celeryev/*", "celeryev/worker.*")
        return tuple(f"{self.options.global_keyprefix}/{self.database}.{name}" for name in names)


def _users(names: _Names) -> Iterator[User]:
    stream, queues, control = escaped(names.stream), (*names.queues,), (*names.control,)
    yield User("producer", _words(_CONNECT, _PUT, _DECLARE), queues)
    yield User("consumer", _words(_CONNECT, _FOLLOW, _GROUP), (stream, f"{{{stream}}}:missed:*"))
    yield User(  # its overview asks what `doctor` asks
        "gateway",
        _words(_CONNECT, _PUT, _FOLLOW, _REMEMBER, _BROADCAST, _ANSWERS, _LOOK, _MEASURE),
        (*queues, *control, f"{{{stream}}}:gateway:*"),
        (*names.keys(*_CLAIMS), stream),
        names.channels,
    )
    yield User(
        "worker",
        _words(_CONNECT, _PUT, _DECLARE, _BROADCAST, _ANSWERS, _TRANSPORT, _PUBLISH, _COUNT, _LOOK),
        (*queues, *names.keys(*_CLAIMS), *control, stream, f"{{{stream}}}:batch:*", f"{{{stream}}}:begun:*"),
        channels=names.channels,
    )
    yield User("flower", _words(_CONNECT, _BROADCAST, _ANSWERS), control, queues, names.channels)
    yield User(
        "exporter",
        _words(_CONNECT, _BROADCAST, _ANSWERS, _MEASURE),
        control,
        (*queues, *names.keys("unacked", "unacked_index"), stream),
        names.channels,
    )


def _words(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(texts).split()))


def escaped(name: str) -> str:
    """Return a name as a pattern of Redis; `?` stands for what a line cannot hold: blanks and control characters."""
    return "".join(f"\\{it}" if it in "*?[]\\" else it if it.isprintable() and it != " " else "?" for it in name)
