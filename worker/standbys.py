"""What `doctor` says of replication: what a failover would lose, and which server is which."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Engine

from models.primary import Server, survey
from models.replication import Standing
from models.standby import Standby
from worker.cli.output import number
from worker.health import Finding

_NAME = "replication"


def replicates(standing: Standing, *, several: bool) -> Iterator[Finding]:
    """Check how a server replicates; `several`: the address has several hosts."""
    if standing.standby:
        advice = "Name the primary in ENROLLMENT_DATABASE_URL, or all servers with target_session_attrs=read-write"
        yield Finding("fail", _NAME, "this server is a standby and takes no writes", advice)
    elif not standing.wanted:
        if several or standing.connected:
            message = "asynchronous: a failover loses the newest commits, also of which the events were published"
            advice = "Set synchronous_standby_names, or know what to send again (docs/scaling.md)"
            yield Finding("warn", _NAME, message, advice)
    elif standing.level in ("off", "local"):
        message = f"synchronous_commit is {standing.level}: commits do not wait for the standby"
        yield Finding("warn", _NAME, message, "Set it to on or remote_apply")
    elif not (standing.synchronous if standing.seen else standing.connected):
        advice = "Start the standby; nothing is lost meanwhile. Emptying synchronous_standby_names gives that up"
        yield Finding("fail", _NAME, "commits wait, and no synchronous standby is connected", advice)
    else:
        shown = number(standing.synchronous, "standby", "standbys") if standing.seen else "synchronous_standby_names"
        yield Finding("ok", _NAME, f"synchronous: {shown}")


def servers(found: Sequence[tuple[str, Server | str]]) -> Iterator[Finding]:
    """Check the servers of an address with several hosts, as `survey` found them."""
    newest = max((server.timeline for _, server in found if isinstance(server, Server)), default=0)
    for name, server in found:
        if isinstance(server, Server):
            if server.timeline < newest:
                message = f"{name} was replaced as the primary and takes writes still (timeline {server.timeline})"
                yield Finding("fail", "servers", message, "Stop it, and make it a standby; workers pass it over")
            else:
                yield Finding("ok", "servers", f"{name} is the primary (timeline {server.timeline})")
        elif server == "standby":
            yield Finding("ok", "servers", f"{name} is a standby")
        else:
            yield Finding("warn", "servers", f"{name} does not answer: {server}", "Until it does, there is one less")


def standbys(standing: Standing, parameters: dict[str, str]) -> Iterator[Finding]:
    """Check the servers of an address, and how the one replicates that is connected."""
    several = "," in (parameters.get("host") or parameters.get("hostaddr") or "")
    if several:
        yield from servers(survey(parameters))
    yield from replicates(standing, several=several)


def lookups(engine: Engine, address: Callable[[], str]) -> Finding:
    """Check whether lookups go to a standby."""
    standby = Standby.beside(engine, address, application_name="enrollment doctor")
    try:
        if connection := standby.connect():
            connection.close()
            return Finding("ok", "lookups", "are answered by a standby that is up to date")
        message = "no standby of ENROLLMENT_READ_URL answers and is up to date: the primary is asked"
        return Finding("warn", "lookups", message, "Start it, or see why it lags (pg_stat_replication on the primary)")
    finally:
        standby.close()
