"""Trace contexts as messages and events carry them: W3C Trace Context, and CloudEvents' extension for it.

One text holds a context: the traceparent, and after a blank the tracestate where there is one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)


def trace_of(headers: Mapping[str, Any]) -> str | None:
    """Return the trace context in a message's headers; None where there is none, or nothing that could be one."""
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return None
    return f"{parent} {state}" if isinstance(state, str) and _TRACESTATE.fullmatch(state) else parent


def attributes_of(trace: str | None) -> dict[str, str]:
    """Return `traceparent` and `tracestate` as far as there are any."""
    parent, _, state = (trace or "").partition(" ")
    return {name: value for name, value in (("traceparent", parent), ("tracestate", state)) if value}


def trace_id_of(headers: Mapping[str, Any]) -> str | None:
    """Return the id of a message's trace, for the log."""
    trace = trace_of(headers)
    return None if trace is None else trace[3:35]
