"""Of several servers the one that takes writes, and never one that was replaced."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg

from models.session import Session

WRITABLE: Final = ("read-write", "primary")  # values of target_session_attrs
SILENT: Final = (
    30.0  # seconds for which a server that did not answer is not asked, where one on the newest timeline does
)
_IDENTITY: Final = """
    SELECT system_identifier, pg_postmaster_start_time(), pg_walfile_name(pg_current_wal_flush_lsn())
      FROM pg_control_system()
"""


class Server(NamedTuple):
    """A server that takes writes."""

    name: str
    cluster: int
    timeline: int
    since: datetime  # of its start


class Primary:
    """Connects to the server that takes writes, of those in an address.

    A promotion begins a new timeline. A primary that was replaced, and came back without being told, takes writes too;
    so all servers are asked, and the highest timeline wins. It is remembered: where only an old primary answers, there
    is none.
    """

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # cluster -> the highest timeline of which we know
        self._silent: dict[str, float] = {}  # server -> when it was asked and did not answer

    def connect(self, parameters: Mapping[str, Any]) -> Session:
        """Return a session on the primary. Raises OperationalError where there is none, or more than one."""
        found = self._ask_all(parameters)
        session, primary = max(found, key=lambda it: it[1].timeline)
        for other, _ in found:
            if other is not session:
                other.close()
        reason = objection(primary, [server for _, server in found], self._seen.get(primary.cluster, 0))
        if reason:
            session.close()
            raise psycopg.OperationalError(reason)
        self._seen[primary.cluster] = primary.timeline
        others = [each for each in hosts(parameters) if name_of(each) != primary.name]
        session.quiet = (lambda: self._look_for_newer(primary, others)) if others else None
        return session

    def _ask_all(self, parameters: Mapping[str, Any]) -> list[tuple[Session, Server]]:
        """Ask every server, those last that did not answer before. Raises OperationalError where none takes writes."""
        found: list[tuple[Session, Server]] = []
        errors: list[psycopg.Error] = []
        newest = False  # whether one was found on the newest timeline that we know of
        for each in sorted(hosts(parameters), key=lambda it: name_of(it) in self._silent):
            name = name_of(each)
            if newest and monotonic() - self._silent.get(name, -inf) < SILENT:
                continue
            try:
                found.append(_asked(each))
                self._silent.pop(name, None)
                _, server = found[-1]
                newest = newest or server.timeline >= self._seen.get(server.cluster, inf)
            except psycopg.Error as error:
                errors.append(error)
                if isinstance(error, psycopg.errors.ConnectionTimeout):
                    self._silent[name] = monotonic()
        if not found:
            raise errors[0] if len(errors) == 1 else _summary(errors)
        return found

    def _look_for_newer(self, primary: Server, others: list[dict[str, Any]]) -> None:
        """Raise OperationalError where another server has become the primary."""
        for each in others:
            try:
                session, server = _asked(each)
            except psycopg.Error:
                continue
            session.close()
            if server.cluster == primary.cluster and server.timeline > primary.timeline:
                self._seen[server.cluster] = max(server.timeline, self._seen.get(server.cluster, 0))
                self._silent[primary.name] = monotonic()
                raise psycopg.OperationalError(f"{primary.name} is silent, and {server.name} is the primary now")


def objection(primary: Server, found: Iterable[Server], newest: int) -> str:
    """Return why a server must not be written to, of the servers that take writes; nothing where it may.

    `newest` is the highest timeline that was seen.
    """
    for server in found:
        if server.cluster != primary.cluster:
            return f"{server.name} and {primary.name} are not of one cluster"
        if server.timeline == primary.timeline and server.since != primary.since:
            return f"{server.name} and {primary.name} both take writes: stop one of them"
    if primary.timeline < newest:
        return f"{primary.name} was replaced as the primary (timeline {primary.timeline}, the newest is {newest})"
    return ""


def survey(parameters: Mapping[str, Any]) -> list[tuple[str, Server | str]]:
    """Return each server by its name: who it is where it takes writes, else `standby`, else why it did not answer."""
    found: list[tuple[str, Server | str]] = []
    for each in hosts(parameters):
        try:
            session, server = _asked({**each, "target_session_attrs": "read-write"})
            session.close()
            found.append((name_of(each), server))
        except psycopg.Error as error:
            read_only = "session is read-only" in str(error)  # libpq's words, in English always
            found.append((name_of(each), "standby" if read_only else str(error).splitlines()[0]))
    return found


def hosts(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each server, by libpq's rule for lists."""
    lists = {name: str(parameters[name]).split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)}
    for place in range(max(map(len, lists.values()), default=1)):
        own = {name: values[place if len(values) > 1 else 0] for name, values in lists.items()}
        yield {**parameters, **{name: value or None for name, value in own.items()}}


def name_of(parameters: Mapping[str, Any]) -> str:
    """Return how a server is called: its host and its port."""
    return f"{parameters.get('host') or parameters.get('hostaddr') or 'localhost'}:{parameters.get('port') or 5432}"


def timeline_of(segment: str) -> int:
    """Return the timeline that is in the name of a file of the log."""
    return int(segment[:8], 16)


def _asked(parameters: Mapping[str, Any]) -> tuple[Session, Server]:
    """Connect to one server and ask who it is. Raises OperationalError, also where it does not say."""
    name = name_of(parameters)

    def give_up() -> None:
        raise psycopg.errors.ConnectionTimeout(f"{name} does not answer")

    session = Session.connect(**parameters)
    session.quiet = give_up
    try:
        [(cluster, since, segment)] = session.execute(_IDENTITY).fetchall()
        session.rollback()
    except BaseException:
        session.close()
        raise
    session.quiet = None
    return session, Server(name, cluster, timeline_of(segment), since)


def _summary(errors: list[psycopg.Error]) -> psycopg.OperationalError:
    reasons = dict.fromkeys(str(error).splitlines()[0] for error in errors)
    return psycopg.OperationalError(f"no server takes writes ({'; '.join(reasons)})")
