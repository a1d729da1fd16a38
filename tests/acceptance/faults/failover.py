"""A PostgreSQL primary that is lost, replaced by its standby, and comes back without knowing it."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.proxy import Proxy
from tests.acceptance.faults.scenario import Run, Scenario
from tests.acceptance.faults.server_faults import TERMINATE
from tests.acceptance.faults.servers import CONNECTIONS
from tests.replication import Node, Pair

WAITING: Final = 0.7  # seconds in which a batch comes to wait, or to be done again
FOREIGN: Final = "SELECT count(*) FROM commands WHERE processed_at > %s"


class Replicated(Harness):
    """With two servers, synchronously replicated. Workers know the proxies of both, always in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(self.folder, {"max_connections": str(CONNECTIONS)})
        self.postgres = self.pair.primary

    def open_proxies(self) -> None:
        one, two = self.pair.nodes
        self.proxies["to the one"] = Proxy(one.port)  # for its standby
        self.pair.join(self.address_for_standby(one))
        self.proxies["to the two"] = Proxy(two.port)
        self.proxies["second"] = Proxy(two.port)
        super().open_proxies()

    def stop(self) -> None:
        self.pair.stop()
        super().stop()

    @property
    def variables(self) -> dict[str, str]:
        said = super().variables
        head, _, name = said["ENROLLMENT_DATABASE_URL"].rpartition("/")
        ports = [self.proxies[each].listens_on for each in ("database", "second")]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return {**said, "ENROLLMENT_DATABASE_URL": f"{head.rpartition('@')[0]}@{hosts}/{name}"}

    def proxy_of(self, node: Node) -> Proxy:
        """Return what is between the workers and a server."""
        return self.proxies["database" if node is self.pair.nodes[0] else "second"]

    def link_of(self, node: Node) -> Proxy:
        """Return what is between a server and its standby."""
        return self.proxies["to the one" if node is self.pair.nodes[0] else "to the two"]

    def address_for_standby(self, node: Node) -> str:
        return node.url.replace(f":{node.port}/", f":{self.link_of(node).listens_on}/")

    def promote(self) -> None:
        self.pair.promote()
        self.postgres = self.pair.primary
        self.database_url = self.postgres.url_of("faults")

    def rejoin(self) -> None:
        """Make the old primary the standby of the new one, from a fresh copy."""
        self.pair.join(self.address_for_standby(self.pair.primary))


# What happens to the old primary; what is called when it comes back.

Back = Callable[[], object]


def _killed(_: Replicated, old: Node) -> Back:
    old.kill()
    return old.start


def _killed_and_back(harness: Replicated, old: Node) -> Back:
    """Cut off from its standby, it ends, and is started again: it shows by then what waited for the standby."""
    harness.link_of(old).refuse(on=True)
    time.sleep(WAITING)
    old.kill()
    old.start()
    time.sleep(WAITING)
    return lambda: harness.link_of(old).refuse(on=False)


def _frozen(_: Replicated, old: Node) -> Back:
    old.freeze()
    return old.thaw


def _cut_off_from_workers(harness: Replicated, old: Node) -> Back:
    harness.proxy_of(old).swallow(on=True)
    return lambda: harness.proxy_of(old).swallow(on=False)


def _cut_off_from_standby(harness: Replicated, old: Node) -> Back:
    """Workers still reach it, and their commits wait."""
    harness.link_of(old).refuse(on=True)
    return lambda: harness.link_of(old).refuse(on=False)


LOSSES: Final = (_frozen, _killed_and_back, _cut_off_from_standby, _cut_off_from_workers, _killed)


def _replaced(run: Run) -> None:
    harness = run.harness
    assert isinstance(harness, Replicated)
    for number in range(run.count):
        run.pause()
        old = harness.pair.primary
        come_back = LOSSES[number % len(LOSSES)](harness, old)
        run.pause(0, 1)
        promoted = datetime.now(UTC)
        harness.promote()
        run.until_work_goes_on()
        come_back()  # nobody has fenced it: it takes itself for the primary
        for _ in range(run.rng.randrange(1, 4)):
            run.pause(0.1, 0.5)
            with harness.database() as connection:  # whoever connects now has to choose
                connection.execute(TERMINATE)
        _check(run, old, promoted)
        harness.rejoin()
        run.injected += 1


def _check(run: Run, old: Node, promoted: datetime) -> None:
    """Look for what was written to the old primary after it was replaced."""
    with old.session("faults") as session:
        assert session.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,)
        [(count,)] = session.execute(FOREIGN, [promoted]).fetchall()
    if count:
        run.wrong.append(f"{count} commands were written to the old primary")


SCENARIOS: Sequence[Scenario] = [
    Scenario("PostgreSQL: the primary replaced, and back", 50, 2, _replaced, seconds=20, harness=Replicated),
]
