"""The probes `doctor --live` and `doctor --ready`: about the worker processes of this user on this machine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker import liveness
from worker.health import Finding

if TYPE_CHECKING:
    from worker.liveness import Sign

_NONE = "Start one with `celery -A worker worker`, as the same user and with the same TMPDIR"
_HELP = "docs/operations.md#a-worker-is-not-alive"


def live() -> Iterator[Finding]:
    """Tell of each worker process whether it takes and finishes work, or waits for a server with reason."""
    signs = liveness.signs()
    if not signs:
        yield Finding("fail", "workers", "none of this user runs on this machine", _NONE)
    for sign in signs:
        yield _live(sign)


def ready() -> Iterator[Finding]:
    """Tell of each worker process whether it takes messages now; and whether what it needs is there."""
    from worker.checks import needed

    signs = liveness.signs()
    if not signs:
        yield Finding("fail", "workers", "none of this user runs on this machine", _NONE)
    for sign in signs:
        taking = sign.ready and sign.state in ("taking", "applying")
        yield _live(sign) if taking else Finding("fail", sign.node, f"{_shown(sign)}, so it takes no messages")
    yield from needed()


def _live(sign: "Sign") -> Finding:
    if sign.age <= liveness.STALE:
        return Finding("ok", sign.node, f"{_shown(sign)}, a sign {sign.age:.0f} s ago")
    if sign.failures >= liveness.FAILURES:
        message = f"it takes messages and finishes none: {sign.failures} batches in a row failed"
    else:
        message = f"it has neither taken nor finished anything for {sign.age:.0f} s"
    return Finding("fail", sign.node, message, f"Restart it, and read its log; {_HELP}")


def _shown(sign: "Sign") -> str:
    return f"process {sign.pid} is {sign.state}"
