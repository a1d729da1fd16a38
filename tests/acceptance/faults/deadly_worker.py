"""The worker, except that certain messages kill it as soon as anything looks into them."""

import os
import signal
from typing import Any

from tests.acceptance.faults.commands import KILLS
from worker.celery import app
from worker.transport import channel, envelope

_parse = envelope.parse


def _deadly(raw: bytes, **known: Any) -> dict[str, Any]:
    if KILLS.encode() in raw:
        os.kill(os.getpid(), signal.SIGKILL)
    return _parse(raw, **known)


channel.parse = _deadly  # type: ignore[attr-defined]  # it is imported there

__all__ = ["app"]
