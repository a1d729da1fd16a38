"""Writing to a Redis so that a failover does not forget it: replicas have it before it counts as written."""

import re
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as TooLate
from redis.utils import str_if_bytes

from enrollment.redis_client import ask_first

_WAIT: Final = 500  # milliseconds for replicas to say that they have it; less than any socket is waited for
_FAILING_OVER: Final = "failover_in_progress"


class NotReplicated(Disconnected):
    """It was written, and a failover may forget it. As a connection error: connect anew and write again.

    `answer` is what the server said to the command; None where that was not even sent.
    """

    def __init__(self, reason: str, answer: Any = None) -> None:
        super().__init__(reason)
        self.answer = answer


class _Replicas(NamedTuple):
    """The replicas of the server of a connection, after which no failover was under way."""

    socket: Any  # redis-py may connect anew
    gone: int  # that have left since the server started
    attached: int
    heard: int  # of these, that said lately what they have


_known: "Final[WeakKeyDictionary[Any, _Replicas]]" = WeakKeyDictionary()
_LOOK: Final = (("INFO", "replication"), ("INFO", "stats"))
_HEARD: Final = re.compile(r"state=online,offset=\d+,lag=[01]\b")  # each says it every second
_ATTACHED: Final = re.compile(r"role:master\r\nconnected_slaves:(\d+)")
_CAME: Final = re.compile(r"sync_(?:full|partial_ok):(\d+)")


def write(connection: Any, replicas: int, *command: Any) -> Any:
    """Send a command on a connection of redis-py; return its answer when `replicas` replicas have all before it, too.

    One round trip, and that of the replicas. Raises NotReplicated, after which the connection is to be ended; and what
    redis-py raises.

    Where a replica has left, a failover may have begun: the server does not know it yet, and the one that still
    confirms is about to be told to forget. And one that is promoted forgets what it has not read, while the server
    takes it for attached: so all are waited for that were heard of lately.
    """
    if not replicas:
        connection.send_command(*command)
        return connection.read_response()
    known = _known.get(connection)
    if known is None or known.socket is not connection._sock:  # noqa: SLF001
        known = _settled(connection)
    wait = ("WAIT", max(replicas, known.heard), _WAIT)
    connection.send_packed_command(connection.pack_commands([command, wait, *_LOOK]))
    answer, confirmed, *look = (_answer(connection) for _ in range(2 + len(_LOOK)))
    for each in (answer, confirmed, *look):
        if isinstance(each, ResponseError):
            raise each
    if confirmed < replicas:
        raise NotReplicated(f"{confirmed} of {replicas} replicas have what was written", answer)
    now = _seen(connection, *look)
    if now.gone != known.gone or now.socket is not known.socket:
        _known.pop(connection, None)
        raise NotReplicated("a replica has left", answer)
    _known[connection] = now
    return answer


def _settled(connection: Any) -> _Replicas:
    """Return the replicas of the server. Raises NotReplicated while a failover is under way.

    In this order: where no sentinel knows of a failover now, none had begun when the replicas were counted.
    """
    connection.send_packed_command(connection.pack_commands(_LOOK[::-1]))
    stats, replication = connection.read_response(), connection.read_response()
    found = _seen(connection, replication, stats)
    pool: Any = getattr(connection, "connection_pool", None)  # of sentinels
    if pool is not None:
        _ask_all(pool.sentinel_manager, pool.service_name, (connection.host, connection.port), found.attached)
    return found


def _seen(connection: Any, replication: str | bytes, stats: str | bytes) -> _Replicas:
    """Return what a server says of its replicas; of a replica, that it has none.

    How many have left is how many came less those that are there. The two are not asked for in one moment: stats come
    first before a write, and last after it, so that one that comes in between counts as one that left.
    """
    said = str_if_bytes(replication)
    found = _ATTACHED.search(said)
    attached = int(found[1]) if found else 0
    gone = sum(map(int, _CAME.findall(str_if_bytes(stats)))) - attached
    return _Replicas(connection._sock, gone, attached, len(_HEARD.findall(said)))  # noqa: SLF001


def _ask_all(manager: Any, name: str, here: tuple[str, int], attached: int) -> None:
    """Ask every sentinel of the primary to which we are connected. Raises NotReplicated where one knows better.

    A sentinel that is cut off with an old primary names that; the others have elected a new one, in a later epoch. The
    one that knows is then the first to be asked. One that is silent may be leading a failover, of which the others do
    not know yet: it has promoted a replica that is alive and not attached here.
    """
    ours, newest, knows, silent, agreed = -1, -1, None, False, []
    for sentinel in manager.sentinels:
        try:
            state = sentinel.sentinel_master(name)
        except NoPermissionError:
            raise
        except (Disconnected, TooLate, ResponseError):
            silent = True
            continue
        if (state["ip"], state["port"]) == here:
            # The new primary may be written to while replicas are still being told of it, which can take long.
            if _FAILING_OVER in state["flags"]:
                raise NotReplicated("a failover is under way")
            ours = max(ours, state["config-epoch"])
            agreed.append(sentinel)
        elif state["config-epoch"] > newest:
            newest, knows = state["config-epoch"], sentinel
    if knows is not None and newest > ours:
        ask_first(manager, name, knows)
        raise NotReplicated("another server is the primary")
    if silent and (not agreed or max(_alive(sentinel, name) for sentinel in agreed) > attached):
        raise NotReplicated("a sentinel is silent, and a replica is away")


def _alive(sentinel: Any, name: str) -> int:
    """Return how many replicas are alive; an old primary that died and has just become one has no id of a run yet."""
    return sum(bool(it["runid"]) and not it["is_sdown"] for it in sentinel.sentinel_slaves(name))


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
