"""Packets that are lost between the workers and their servers: some of them, or all that go one way.

A proxy cannot lose a packet. So everything runs in a network namespace of its own, where the kernel drops them.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.network import TOO_LONG
from tests.acceptance.faults.scenario import Run, Scenario, Skipped

CLONE_NEWNET: Final = 0x40000000
HERE: Final = "/proc/thread-self/ns/net"
LOST: Final = ("-m", "statistic", "--mode", "random", "--probability", "0.01")
PROXIES: Final = ("broker", "database", "events")


class InNamespace(Harness):
    """In a network namespace, with a loopback that nobody else uses. Only this thread and what it starts are in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._outside = os.open(HERE, os.O_RDONLY)

    def __enter__(self) -> Self:
        try:
            _enter_namespace()
        except BaseException:
            self.stop()
            raise
        return super().__enter__()

    def stop(self) -> None:
        super().stop()
        _libc().setns(self._outside, CLONE_NEWNET)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _enter_namespace() -> None:
    """Make one, and have this thread in it. Raises Skipped."""
    if shutil.which("iptables") is None or shutil.which("ip") is None:
        raise Skipped("iptables or ip is not installed (Debian and Ubuntu: apt install iptables iproute2)")
    if _libc().unshare(CLONE_NEWNET):
        raise Skipped(f"a network namespace cannot be made: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: S607 - found on the PATH


@contextmanager
def _dropped(*rule: str) -> Iterator[None]:
    """Have the kernel drop the packets that a rule of iptables names."""
    words = ("INPUT", "--in-interface", "lo", "--protocol", "tcp", *rule, "--jump", "DROP")
    iptables = shutil.which("iptables") or ""
    subprocess.run([iptables, "--wait", "--append", *words], check=True)
    try:
        yield
    finally:
        subprocess.run([iptables, "--wait", "--delete", *words], check=True)


def _some_lost(run: Run) -> None:
    with _dropped(*LOST):
        for _ in range(run.count):
            run.pause(1, 2)
            run.injected += 1
            run.until_work_goes_on()


def _one_way(port: str) -> Callable[[Run], None]:
    """Return a fault that loses what has this port as its destination (requests) or its source (answers)."""

    def inject(run: Run) -> None:
        for number in range(run.count):
            run.pause(0.5, 2)
            proxy = run.harness.proxies[PROXIES[number % len(PROXIES)]]
            with _dropped(port, str(proxy.listens_on)):
                time.sleep(TOO_LONG)
            run.injected += 1
            run.until_work_goes_on("healed")

    return inject


def _half_open(run: Run) -> None:
    """The servers' side ends while no packet passes, so the workers' side never hears of it."""
    for number in range(run.count):
        run.pause(0.5, 2)
        proxy = run.harness.proxies[PROXIES[number % len(PROXIES)]]
        port = str(proxy.listens_on)
        with _dropped("--dport", port), _dropped("--sport", port):
            proxy.cut_all()
            time.sleep(1)
        run.injected += 1
        run.until_work_goes_on("healed")


SCENARIOS: Sequence[Scenario] = [
    Scenario("1 % of all packets lost", 20, 0, _some_lost, harness=InNamespace),
    Scenario("no request arrives for 12 s", 6, 0, _one_way("--dport"), harness=InNamespace),
    Scenario("no answer arrives for 12 s", 6, 0, _one_way("--sport"), harness=InNamespace),
    Scenario("half-open connections", 12, 0, _half_open, harness=InNamespace),
]
