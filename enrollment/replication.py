"""Writing to a Redis so that a failover does not forget it: replicas have it before it counts as written."""

from typing import Any, Final
from weakref import WeakKeyDictionary

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooLate

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


# How many replicas the server of a connection had when no failover was under way. With fewer, one may have begun: the
# server does not know it yet, and the replica that still confirms is about to be told to forget.
_attached: "Final[WeakKeyDictionary[Any, tuple[Any, int]]]" = WeakKeyDictionary()


def write(connection: Any, replicas: int, *command: Any) -> Any:
    """Send a command on a connection of redis-py; return its answer when `replicas` replicas have all before it, too.

    One round trip, and that of the replicas. Raises NotReplicated, after which the connection is to be ended; and what
    redis-py raises.
    """
    if not replicas:
        connection.send_command(*command)
        return connection.read_response()
    if connection not in _attached or _attached[connection][0] is not connection._sock:  # noqa: SLF001 - redis-py may connect anew
        _attached[connection] = _settled(connection)
    connection.send_packed_command(connection.pack_commands([command, ("WAIT", replicas, _WAIT), ("ROLE",)]))
    answer, confirmed, role = (_answer(connection) for _ in range(3))
    for each in (answer, confirmed, role):
        if isinstance(each, ResponseError):
            raise each
    if confirmed < replicas:
        raise NotReplicated(f"{confirmed} of {replicas} replicas have what was written", answer)
    sock, before = _attached[connection]
    there = _replicas(role)
    if there < before:
        del _attached[connection]
        raise NotReplicated(f"{there} of {before} replicas are left", answer)
    _attached[connection] = (sock, there)
    return answer


def _settled(connection: Any) -> tuple[Any, int]:
    """Return the socket and how many replicas there are. Raises NotReplicated while a failover is under way.

    In this order: where no sentinel knows of a failover now, none had begun when the replicas were counted.
    """
    connection.send_command("ROLE")
    role = connection.read_response()
    pool: Any = getattr(connection, "connection_pool", None)  # of sentinels
    if pool is not None:
        _ask_all(pool.sentinel_manager, pool.service_name, (connection.host, connection.port))
    return connection._sock, _replicas(role)  # noqa: SLF001


def _ask_all(manager: Any, name: str, here: tuple[str, int]) -> None:
    """Ask every sentinel of the primary to which we are connected. Raises NotReplicated where one knows better.

    A sentinel that is cut off with an old primary names that; the others have elected a new one, in a later epoch. The
    one that knows is then the first to be asked.
    """
    ours, newest, knows = -1, -1, None
    for sentinel in manager.sentinels:
        try:
            state = sentinel.sentinel_master(name)
        except (Disconnected, TooLate, ResponseError):  # the others know
            continue
        if (state["ip"], state["port"]) == here:
            # The new primary may be written to while replicas are still being told of it, which can take long.
            if _FAILING_OVER in state["flags"]:
                raise NotReplicated("a failover is under way")
            ours = max(ours, state["config-epoch"])
        elif state["config-epoch"] > newest:
            newest, knows = state["config-epoch"], sentinel
    if knows is not None and newest > ours:
        ask_first(manager, name, knows)
        raise NotReplicated("another server is the primary")


def _replicas(role: Any) -> int:
    """Return how many replicas a server has, by what it says to ROLE; a replica says something else there."""
    return len(role[2]) if isinstance(role[2], list) else 0


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
