"""RabbitMQ for the tests: nodes on free ports, each with a folder and, for its cluster, a port mapper of its own.

It needs Debian's package `rabbitmq-server`; the service of that package is neither used nor disturbed.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import amqp

from tests.tools import require_tool
from worker.local.process import Account, Child, run
from worker.local.server import Server, free_port

ERLANG: Final = Path("/usr/lib/erlang")
COOKIE: Final = "tests"
PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")  # those on the PATH insist on being root or `rabbitmq`
ANSWER: Final = 2.0  # seconds


class PortMapper:
    """Erlang's epmd, which tells nodes where others listen: one for each cluster, so that none of another is met."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = ["epmd", "-port", str(self.port), "-address", "127.0.0.1"]
        self.child = Child(name="epmd", command=command, log=folder / "epmd.log", account=Account.unprivileged())

    def start(self) -> None:
        self.child.start()

    def stop(self) -> None:
        self.child.kill()


class RabbitMQ(Server):
    """A node. `settings` are lines of rabbitmq.conf, beside those that it needs here; `advanced` is advanced.config."""

    name = "RabbitMQ"

    def __init__(
        self,
        folder: Path,
        mapper: PortMapper,
        *,
        node: str = "one",
        peers: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        advanced: str = "[].",
    ) -> None:
        super().__init__(folder)
        self.node = f"{node}@localhost"
        self._mapper = mapper
        self._peers = [f"{peer}@localhost" for peer in peers]
        self._settings = dict(settings or {})
        self._advanced = advanced
        self._distribution = free_port()

    @property
    def url(self) -> str:
        """The address of the virtual host `/`."""
        return f"amqp://enrollment:{self.password}@127.0.0.1:{self.port}//"

    @property
    def password(self) -> str:
        """Of the user `enrollment`; the nodes of a cluster have one."""
        return "secret"

    def run(self, code: str) -> str:
        """Evaluate Erlang in the node; return what comes of it. Raises AssertionError when that is an error."""
        (program,) = ERLANG.glob("erts-*/bin/erl_call")
        command = [str(program), "-c", COOKIE, "-n", self.node, "-e"]
        done = subprocess.run(
            command, input=f"{code}\n", env=self._environment(self.port), capture_output=True, text=True, check=False
        )
        assert done.stdout.startswith("{ok, "), f"{code} {done.stdout} {done.stderr}"
        return done.stdout

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; return what it says. It takes seconds. Raises AssertionError when it fails."""
        environment = self._environment(self.port)
        done = run([str(PROGRAMS / "rabbitmqctl"), "--quiet", *arguments], account=self._account, env=environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def _account(self) -> Account | None:
        return Account.unprivileged()

    def _prepare(self) -> None:
        require_tool("rabbitmq-server")
        lines = {
            "listeners.tcp.1": "127.0.0.1:0",
            "default_user": "enrollment",
            "default_pass": self.password,
            "loopback_users": "none",
            "log.console": "true",
            "log.file": "false",
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_name": "tests",
            **{f"cluster_formation.classic_config.nodes.{index}": it for index, it in enumerate(self._peers, 1)},
            **self._settings,
        }
        self._lines = lines
        (self.folder / "advanced.config").write_text(self._advanced)
        if self._account is not None:
            os.chown(self.folder, self._account.uid, self._account.gid)

    def _child_on(self, port: int) -> Child:
        lines = {**self._lines, "listeners.tcp.1": f"127.0.0.1:{port}"}
        (self.folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        return Child(
            name=self.name,
            command=[str(PROGRAMS / "rabbitmq-server")],
            log=self.log,
            env=self._environment(port),
            cwd=self.folder,
            account=self._account,
            stop_steps=((signal.SIGTERM, 20.0),),
        )

    def _environment(self, port: int) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # of the cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": "true",  # the script becomes the server, and signals reach it
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_ERLANG_COOKIE": COOKIE,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false +S 2:2 +sbwt none +sbwtdcpu none",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
        }

    def _answers(self, child: Child, port: int) -> bool:
        try:
            with self.connect(port):
                return child.running
        except (OSError, amqp.AMQPError):
            return False

    def connect(self, port: int | None = None) -> Any:
        """Return a connection."""
        host = f"127.0.0.1:{port or self.port}"
        connection: Any = amqp.Connection(host, "enrollment", self.password, connect_timeout=ANSWER)
        connection.connect()
        return connection
