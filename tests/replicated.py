"""A Redis with two replicas and three sentinels, each Redis behind a proxy that can cut it off from everyone."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.acceptance.faults.proxy import Proxy
from worker.local.process import Child
from worker.local.redis import Redis

MASTER: Final = "school"
DOWN_AFTER: Final = 2000  # milliseconds of silence after which a sentinel takes the primary to be down
SERVERS: Final = 3
SETTINGS: Final = {
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "10",
    "repl-diskless-sync-delay": "0",
    "appendfsync": "no",
}
_PATIENCE: Final = 60.0  # seconds


class SentinelServer(Redis):
    """A sentinel; `settings` are lines of its configuration."""

    name = "Redis Sentinel"

    def _child_on(self, port: int) -> Child:
        settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(self.folder / "data"), **self.settings}
        path = self.folder / "sentinel.conf"
        if not path.exists():  # afterwards it is the sentinel's own
            path.touch(mode=0o600)
            path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return Child(
            name=self.name,
            command=[str(self._program), str(path), "--sentinel"],
            log=self.log,
            env={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self.folder,
            death_signal=signal.SIGTERM,
        )

    def _answers(self, child: Child, port: int) -> bool:
        try:
            password = self.settings.get("requirepass")
            with redis.Redis(
                "127.0.0.1", port, password=password, socket_timeout=1, retry=Retry(NoBackoff(), 0)
            ) as client:
                return bool(client.info()["process_id"] == child.pid)
        except redis.RedisError:
            return False


class ReplicatedRedis:
    """Three servers, of which one is the primary, and three sentinels. Started when entered, stopped when left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.servers: list[Redis] = []
        self.proxies: list[Proxy] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The address of the sentinels."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel://:{self.servers[0].password}@{hosts}/0?master_name={MASTER}"

    def client(self, number: int | None = None, **options: Any) -> redis.Redis:
        """Return a client of a server, directly; by default of the one that the sentinels name."""
        number = self.primary if number is None else number
        return redis.Redis.from_url(
            self.servers[number].url, **{"decode_responses": True, "socket_timeout": 10, **options}
        )

    @property
    def primary(self) -> int:
        """The number of the server that the sentinels name; most of them agree."""
        names = [str(self.ask(number).get("port")) for number, it in enumerate(self.sentinels) if it.running]
        ports = [str(proxy.listens_on) for proxy in self.proxies]
        return ports.index(max(names, key=names.count))

    @property
    def replicas(self) -> list[Redis]:
        """The other servers."""
        return [server for number, server in enumerate(self.servers) if number != self.primary]

    def follow(self, server: Redis) -> None:
        """Make a server a replica of the primary again; wait until it is."""
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", str(self.proxies[self.primary].listens_on))
        self.wait_until_whole()

    def ask(self, sentinel: int) -> dict[str, Any]:
        """Return what a sentinel says of the primary."""
        with redis.Redis("127.0.0.1", self.sentinels[sentinel].port, decode_responses=True, socket_timeout=5) as client:
            return dict(client.sentinel_master(MASTER))

    def ask_to_fail_over(self) -> None:
        """Have the primary replaced, as before maintenance of its host."""
        with redis.Redis("127.0.0.1", self.sentinels[0].port) as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER)

    def wait_for_promotion(self, old: int) -> int:
        """Wait until another server is the primary, for all sentinels; return its number."""
        until(lambda: self.primary != old)
        return self.primary

    def wait_until_whole(self) -> None:
        """Wait until the primary has its replicas and all sentinels think well of all."""

        def whole() -> bool:
            said = [self.ask(number) for number in range(len(self.sentinels))]
            if any(it["flags"] not in ("master", {"master"}) or it["num-other-sentinels"] < SERVERS - 1 for it in said):
                return False
            with self.client() as client:
                info: Any = client.info("replication")
            links = [info.get(f"slave{number}", {}) for number in range(SERVERS - 1)]
            return info["role"] == "master" and all(link.get("state") == "online" for link in links)

        until(whole)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(SERVERS):
            self._start_server(number)
        for number in range(1, SERVERS):
            with self.client(number) as client:
                client.replicaof("127.0.0.1", str(self.proxies[0].listens_on))
        for number in range(SERVERS):
            self.sentinels.append(self._stack.enter_context(self._sentinel(number)))
        until(lambda: all(self.ask(number)["num-other-sentinels"] == SERVERS - 1 for number in range(SERVERS)))
        self.wait_until_whole()

    def _start_server(self, number: int) -> None:
        proxy = Proxy(0)
        self._stack.callback(proxy.close)
        server = Redis(self.folder / f"redis{number}", settings=dict(SETTINGS))
        server.folder.mkdir(parents=True)
        if self.servers:  # one password for all: each may become another's primary
            (server.folder / "password").write_text(self.servers[0].password)
        server.settings |= {
            "masterauth": server.password,
            "replica-announce-ip": "127.0.0.1",
            "replica-announce-port": str(proxy.listens_on),
        }
        self._stack.enter_context(server)
        proxy.port = server.port
        self.servers.append(server)
        self.proxies.append(proxy)

    def _sentinel(self, number: int) -> SentinelServer:
        settings = {
            f"sentinel monitor {MASTER}": f"127.0.0.1 {self.proxies[0].listens_on} 2",
            f"sentinel auth-pass {MASTER}": self.servers[0].password,
            f"sentinel down-after-milliseconds {MASTER}": str(DOWN_AFTER),
            f"sentinel failover-timeout {MASTER}": "6000",
            f"sentinel parallel-syncs {MASTER}": "2",
            f"sentinel config-epoch {MASTER}": "1",
        }
        return SentinelServer(self.folder / f"sentinel{number}", settings=settings)


def until(condition: Callable[[], object], timeout: float = _PATIENCE) -> None:
    """Wait for a condition to hold; a server that does not answer is waited for as well. Raises AssertionError."""
    end = time.monotonic() + timeout
    while True:
        with suppress(redis.RedisError, ValueError):
            if condition():
                return
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
